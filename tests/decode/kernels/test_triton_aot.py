"""The Triton kernels, compiled ahead of time for several GPUs: registers, spills and shared memory."""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("Triton's interpreter does not compile", allow_module_level=True)

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from hedgerow.decode.kernels.triton import plan_step

CAPABILITIES = (80, 90, 100)
LOGITS = ("fp32", "bf16")
PAPER = {"batch": 2, "width": 70, "beam_width": 70, "codebook_size": 2048}
ONEREC = {"batch": 8, "width": 512, "beam_width": 512, "codebook_size": 8192}
ROOT = {"depth": 0, "width": 1, "sparse": True, "forks": 0, "dense": True}
HEAD = {"depth": 1, "sparse": True, "forks": 0, "dense": True}
ROW_POINTERS = {"depth": 2, "sparse": True, "forks": 0, "dense": False}
UNARY = {"depth": 7, "sparse": False, "forks": 0, "dense": False, "max_branch": 1}
# The levels of uniformly random catalogs of 20M and 1.5M items, and others of their sizes.
STEPS: dict[str, dict[str, Any]] = {
    "paper, root": PAPER | ROOT | {"max_branch": 2048},
    "paper, dense": PAPER | HEAD | {"max_branch": 2048},
    "paper, sparse": PAPER | ROW_POINTERS | {"max_branch": 22},
    "paper, forked": PAPER | UNARY | {"depth": 3, "forks": 23_000, "max_branch": 3},
    "paper, unary": PAPER | UNARY,
    "paper, fat node": PAPER | ROW_POINTERS | {"max_branch": 2000},
    "onerec, root": ONEREC | ROOT | {"max_branch": 8192},
    "onerec, dense": ONEREC | HEAD | {"max_branch": 8192},
    "onerec, sparse": ONEREC | ROW_POINTERS | {"max_branch": 240},
    "onerec, forked": ONEREC | UNARY | {"depth": 2, "forks": 16_000, "max_branch": 3},
}
# The same with constraint sets and 1,000 excluded items.
CONSTRAINED = ("paper, dense", "paper, forked", "paper, fat node", "onerec, root", "onerec, sparse")
STEPS |= {f"{name}, sets": STEPS[name] | {"sets": True, "room": 1024} for name in CONSTRAINED}
POINTERS = dict.fromkeys(("scores", "shifts", "log_sums", "new_scores"), "*fp32") | {
    "codes": "*i16",
    "keys": "*i64",
}
NUMBERS = {"batch_stride", "beam_stride", "num_pointers", "width", "max_branch", "span", "beam_width", "depth"}
NUMBERS |= {"capacity", "set_words", "room"}
SHARED_LIMIT = 163 * 1024
REGISTERS = 65_536


@dataclass(frozen=True)
class Compiled:
    """The resources of a multiprocessor that a kernel uses."""

    kernel: str
    logits: str
    capability: int
    warps: int
    registers: int
    spilled: int
    shared: int
    steps: str
    ptx: str


def compiled_kernels(capability: int) -> Iterator[Compiled]:
    """Compile every kernel of STEPS, each set of options once."""
    kernels: dict[tuple, list[str]] = {}
    for step, shape in STEPS.items():
        for kernel, options in plan_step(**shape, normalize="codes").kernels:
            for logits in LOGITS if "logits" in kernel.arg_names else ("-",):
                kernels.setdefault((kernel, tuple(options.items()), logits), []).append(step)
    for (kernel, options, logits), steps in kernels.items():
        yield compile_kernel(kernel, dict(options), logits, capability, "; ".join(steps))


def compile_kernel(kernel: Any, options: Mapping[str, Any], logits: str, capability: int, steps: str = "") -> Compiled:
    """Compile a kernel as its launch would, with aligned tensors, and read its resources from the log of ptxas."""
    names = kernel.arg_names
    constants = {name: value for name, value in options.items() if name in names}
    types = dict.fromkeys(constants, "constexpr") | dict.fromkeys(NUMBERS, "i32") | POINTERS | {"logits": f"*{logits}"}
    signature = {name: types.get(name, "*i32") for name in names}
    aligned = [
        position for position, name in enumerate(names) if signature[name].startswith("*") or name.endswith("_stride")
    ]
    source = ASTSource(kernel, signature, constants, {(position,): [["tt.divisibility", 16]] for position in aligned})
    compiler_options = {name: value for name, value in options.items() if name not in names}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=compiler_options)
    log = ptxas_log(compiled.asm["ptx"], capability)
    registers = re.search(r"Used (\d+) registers", log)
    assert registers, log
    return Compiled(
        kernel=kernel.__name__,
        logits=logits,
        capability=capability,
        warps=options["num_warps"],
        registers=int(registers[1]),
        spilled=sum(map(int, re.findall(r"(\d+) bytes spill", log))),
        shared=compiled.metadata.shared,
        steps=steps,
        ptx=compiled.asm["ptx"],
    )


def ptxas_log(ptx: str, capability: int) -> str:
    """The log of the assembler that Triton ships, for a program."""
    target = re.search(r"\.target (\w+)", ptx)
    assert target
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        command = [get_ptxas(capability).path, "-v", "--gpu-name", target[1], file.name, "-o", os.devnull]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr


@pytest.mark.skipif("HEDGEROW_TEST_TRITON" not in os.environ, reason="make test-triton runs these tests: minutes")
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_no_kernel_spills(capability):
    table = list(compiled_kernels(capability))
    print(f"\nsm_{capability}  kernel         logits  warps  registers  spilled  shared  steps")
    for row in table:
        numbers = f"{row.warps:5}  {row.registers:9}  {row.spilled:7}  {row.shared:6}"
        print(f"        {row.kernel:13}  {row.logits:6}  {numbers}  {row.steps}")
    assert {row.kernel for row in table} == {"list_children", "measure_rows", "shortlist", "place"}
    for row in table:
        assert row.spilled == 0, row
        assert row.shared <= SHARED_LIMIT, row
        assert row.registers * row.warps * 32 <= REGISTERS, row


@pytest.mark.parametrize("normalize", ["allowed", None])
@pytest.mark.parametrize("step", ["paper, dense", "paper, sparse", "onerec, sparse"])
def test_other_normalizers_compile(step, normalize):
    kernel, options = plan_step(**STEPS[step], normalize=normalize).kernels[0]
    assert compile_kernel(kernel, options, "fp16", 90).spilled == 0


@pytest.mark.parametrize("capability", [90, 100])
@pytest.mark.parametrize("step", ["paper, dense", "paper, sparse", "paper, forked, sets", "onerec, sparse"])
def test_kernels_that_start_early(step, capability):
    for kernel, options in plan_step(**STEPS[step], normalize="codes", early=True).kernels:
        compiled = compile_kernel(kernel, options, "bf16", capability)
        assert compiled.spilled == 0, compiled
        lines = [line.strip().replace(" ;", ";") for line in compiled.ptx.splitlines()]
        waiting = lines.index("griddepcontrol.wait;")
        assert lines.index("griddepcontrol.launch_dependents;") < waiting
        # What the previous kernel writes is only read after it.
        accesses = [number for number, line in enumerate(lines) if re.search(r"\b(ld|st|atom)\.global", line)]
        assert accesses
        assert min(accesses) > waiting
