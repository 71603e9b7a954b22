"""Run every Python and shell block of README.md and of the pages under docs/, and check the links between them.

The blocks of one page run in order, in an empty folder; its Python blocks share one namespace.
"""

import os
import re
import shlex
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import hedgerow as hr

ROOT = Path(__file__).parents[2]
PAGES = {
    page.relative_to(ROOT).as_posix(): page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
# Every block that does not run: page and first line, without its comment -> reason. Its fence has .no-run.
GPU = "needs an NVIDIA GPU"
RAY = "starts Ray: tests/ray/test_examples.py"
VLLM = "needs vLLM: tests/vllm_plugin"
NOT_RUN = {
    ("README.md", "pip install torch --index-url https://download.pytorch.org/whl/cpu"): "installs packages",
    ("README.md", "make demo"): "installs packages",
    ("README.md", 'hedgerow demo --prompt "Recommend me a western"'): "takes minutes",
    ("README.md", "make serve"): "runs until it is stopped",
    ("docs/how-to/serving.md", "pip install 'hedgerow[serve]'"): "installs packages, and runs until it is stopped",
    (
        "docs/how-to/serving.md",
        """curl -s localhost:8000/v1/retrieve -d '{"prompt": "A western", "k": 3, "fields": ["title", "year"]}'""",
    ): "needs a running service: tests/serve",
    ("docs/how-to/serving.md", "hedgerow live remove shop.live 4711"): "needs a running service: tests/serve",
    (
        "docs/how-to/serving.md",
        "hedgerow bench serve http://127.0.0.1:8000 --clients 1,32 --rate 50 --index shop.hedgerow",
    ): "needs a running service: tests/serve",
    (
        "docs/how-to/evaluate.md",
        "hedgerow evaluate model shop.hedgerow clicks.parquet --text title --blend model,item-knn,text-knn",
    ): "needs a trained model: tests/cli/test_evaluate.py",
    (
        "docs/how-to/training.md",
        "hedgerow train shop.hedgerow clicks.parquet -o model --quantizer shop.safetensors",
    ): "needs a shop: docs/tutorial.md",
    ("docs/how-to/daily-updates.md", "pip install 'hedgerow[remote]'"): "installs packages: tests/live/test_pull.py",
    ("docs/how-to/daily-updates.md", "cp shop.live/current.json current.json"): "needs a bucket",
    ("docs/how-to/reinforcement.md", "python examples/grpo.py --steps 60"): "takes minutes: tests/examples",
    (
        "docs/how-to/reinforcement.md",
        "hedgerow train films.hedgerow histories.csv -o model --quantizer films.safetensors --size tiny --epochs 6 \\",
    ): "takes minutes: tests/training/test_train.py",
    ("docs/how-to/vllm.md", "pip install vllm"): "installs packages, and runs until it is stopped",
    (
        "docs/how-to/vllm.md",
        """curl -s localhost:8000/v1/retrieve -d '{"prompt": "A western", "k": 3, "sets": ["recent"]}'""",
    ): VLLM,
    ("docs/how-to/vllm.md", "import os"): VLLM,
    ("docs/how-to/vllm.md", "from vllm import LLM, SamplingParams"): VLLM,
    ("docs/how-to/vllm.md", "from hedgerow.vllm.sglang import CatalogLogitProcessor"): "needs SGLang",
    ("docs/tutorial.md", "hedgerow serve model films.live --follow"): "runs until it is stopped: tests/serve",
    ("docs/index.md", "pip install torch --index-url https://download.pytorch.org/whl/cpu"): "installs packages",
    ("docs/performance.md", "pip install 'hedgerow[bench,torch,jax]'"): "installs packages and takes hours",
    ("docs/how-to/ray.md", "hedgerow build items/ -o shop.hedgerow --ray --workers 8 --memory 2GB"): RAY,
    ("docs/how-to/ray.md", "from hedgerow.demo.films import DATA"): RAY,
    ("docs/how-to/ray.md", "import pyarrow as pa"): RAY,
    ("docs/how-to/ray.md", "import hedgerow.ray"): RAY,
    ("docs/how-to/jax.md", "from functools import partial"): "needs 8 devices",
    ("docs/how-to/distributed.md", "import transformers"): "needs several processes: tests/distributed",
    ("docs/how-to/distributed.md", "import jax"): "needs 4 devices: tests/distributed",
    (
        "docs/how-to/export.md",
        "python examples/export/export_torch.py shop.hedgerow exported --beam-width 50",
    ): "takes minutes: tests/examples/test_export.py",
    ("docs/how-to/gpu.md", "bash benchmarks/gpu.sh"): GPU,
    (
        "docs/how-to/gpu.md",
        "TRITON_CACHE_DIR=triton-cache PYTHONPATH=src python benchmarks/gpu_compile.py",
    ): "takes minutes",
    ("docs/how-to/gpu.md", 'device_index = index.to("torch", device="cuda")'): GPU,
    (
        "docs/how-to/gpu.md",
        'logits = [torch.empty(8, 1 if level == 0 else 70, 2048, device="cuda") for level in range(index.num_levels)]',
    ): GPU,
    (
        "docs/how-to/gpu.md",
        'device_index = index.to("torch", device="cuda", capacity=hr.Capacity.of(index, headroom=1.5))',
    ): GPU,
    (
        "docs/how-to/gpu.md",
        'retriever = Retriever(model.to("cuda"), index, tokens, cuda_graphs=True)',
    ): GPU,
}
RUN = ("python", "sh")
# A fence of any other language would go untested.
LANGUAGES = {*RUN, "text", "json", "yaml", "toml", "dockerfile"}
FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>[^`\n]*)\n(?P<body>.*?)^(?P=indent)(?P=fence) *$", re.S | re.M
)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\((?P<target>[^)\s]+)(?: \"[^\"]*\")?\)")
# Pages that the build generates: docs/_scripts/hooks.py.
GENERATED = {"docs/reference/cli.md", "docs/reference/errors.md"}
# The tests' own interpreter, whatever `hedgerow` is on the PATH.
COMMAND = 'set -euo pipefail\nhedgerow() { "$PYTHON" -m hedgerow "$@"; }\n'


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    number: int
    language: str
    info: str
    body: str

    @property
    def runs(self) -> bool:
        return self.language in RUN and "no-run" not in self.info

    @property
    def first_line(self) -> str:
        return self.body.strip().partition("\n")[0].partition("  #")[0].rstrip()


def blocks_of(page: str) -> list[Block]:
    found = []
    for number, match in enumerate(FENCE.finditer(PAGES[page].read_text("utf-8")), 1):
        info = match["info"].strip()
        language = re.match(r"[\w.+-]*", info)
        assert language is not None
        found.append(Block(page, number, language[0], info, textwrap.dedent(match["body"])))
    return found


def prose_of(page: str) -> str:
    """The page without its blocks and inline code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", PAGES[page].read_text("utf-8")))


@pytest.mark.parametrize("page", [page for page in PAGES if any(block.runs for block in blocks_of(page))])
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, Any] = {"__name__": "page"}
    for block in filter(lambda block: block.runs, blocks_of(page)):
        if block.language == "python":
            run_python(block, names)
        else:
            run_in_shell(block)


def run_python(block: Block, names: dict[str, Any]) -> None:
    try:
        exec(compile(block.body, f"{block.page}, block {block.number}", "exec"), names)
    except hr.MissingDependencyError as error:
        pytest.skip(str(error))
    except ModuleNotFoundError as error:
        if str(error.name).startswith("hedgerow"):
            raise
        pytest.skip(str(error))


def run_in_shell(block: Block) -> None:
    sources = [str(Path(hr.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": os.pathsep.join(filter(None, sources))}
    done = subprocess.run(["bash", "-c", COMMAND + block.body], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{block.page}, block {block.number}:\n{done.stdout[-2000:]}{done.stderr[-5000:]}"


@pytest.mark.parametrize("page", PAGES)
def test_fences_are_known(page):
    """Every fence has a language that is run or that is text, so that no code goes untested."""
    text = PAGES[page].read_text("utf-8")
    unknown = [block.info for block in blocks_of(page) if block.language not in LANGUAGES]
    assert not unknown
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(blocks_of(page))


def test_blocks_that_do_not_run_are_listed():
    marked = {(block.page, block.first_line) for page in PAGES for block in blocks_of(page) if "no-run" in block.info}
    assert marked == set(NOT_RUN)


def test_tutorial_asserts_its_claims():
    blocks = [block.body for block in blocks_of("docs/tutorial.md") if block.language == "python"]
    assert blocks
    assert all(re.search(r"^assert ", block, re.MULTILINE) for block in blocks)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    """Links to files exist, those to anchors of pages too. Links to generated pages are checked by the build."""
    broken = []
    for match in LINK.finditer(prose_of(page)):
        target, _, anchor = match["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = PAGES[page] if not target else (PAGES[page].parent / target).resolve()
        name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
        missing = not path.exists() and name not in GENERATED
        if missing or (anchor and name in PAGES and anchor not in anchors_of(name)):
            broken.append(match["target"])
    assert not broken


def anchors_of(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them of plain headings."""
    headings = re.findall(r"^#+ +(.+?) *$", FENCE.sub("", PAGES[page].read_text("utf-8")), re.MULTILINE)
    explicit = {match[1] for heading in headings if (match := re.search(r"\{#([\w-]+)\}", heading))}
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return slugs | explicit


@pytest.mark.parametrize("page", [page for page in PAGES if page != "README.md"])
def test_pages_keep_to_the_site(page):
    """Pages link to nothing outside docs/ but pictures, which the build copies: see docs/_scripts/hooks.py."""
    outside = []
    for match in LINK.finditer(prose_of(page)):
        target = match["target"].partition("#")[0]
        path = (PAGES[page].parent / target).resolve()
        if target and not re.match(r"[a-z]+:", target) and not path.is_relative_to(ROOT / "docs"):
            outside.append(target)
    assert [target for target in outside if not target.endswith((".png", ".svg"))] == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_do_not_run_exist(page):
    """The commands and flags of shell blocks that do not run are those of the application."""
    from typer.main import get_command

    from hedgerow.cli.main import app

    for block in blocks_of(page):
        if block.language == "sh" and not block.runs:
            for line in re.findall(r"^hedgerow .*", block.body.replace("\\\n", " "), re.MULTILINE):
                command, words = get_command(app), shlex.split(line, comments=True)[1:]
                while words and words[0] in getattr(command, "commands", {}):
                    command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
                assert not hasattr(command, "commands"), line
                known = {spelling for param in command.params for spelling in param.opts}
                assert {word for word in words if re.match(r"--?[a-z]", word)} <= known, line
