"""Exported steps run in a process that cannot import hedgerow, and return the beams of hr.beam_search."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import array_of

import hedgerow as hr
from hedgerow.decode.ops import to_numpy

EXAMPLES = Path(__file__).parents[2] / "examples/export"
WIDTH, BATCH = 20, 3
# The same in both processes.
LOGITS = """
import numpy as np


def logits_of(codes, size):
    last = codes[..., -1] if codes.shape[-1] else np.zeros(codes.shape[:2])
    request = np.arange(len(codes))[:, None]
    return np.sin(np.arange(size) * (last + 7 * request + 1.5)[..., None]).astype(np.float32)
"""
# An import of a module that is None raises ModuleNotFoundError.
SEARCH = """
import sys

sys.modules["hedgerow"] = None
import numpy as np
import {framework}
from search_{framework} import load_steps, search
from pathlib import Path

SIZES = {sizes}


def logits_fn(codes, parents):
    logits = logits_of(np.asarray(codes), SIZES[codes.shape[-1]])
    return {convert}(logits)


folder = Path(sys.argv[1])
codes, scores = search(load_steps(folder), logits_fn, {batch})
np.savez(folder / "found.npz", codes=np.asarray(codes), scores=np.asarray(scores))
assert not any(name.startswith("hedgerow.") for name in sys.modules)
"""
CONVERT = {"torch": "torch.from_numpy", "jax": "jax.numpy.asarray"}


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_exported_steps_run_without_hedgerow(framework, tmp_path):
    pytest.importorskip(framework)
    sizes = (12, 40)
    rng = np.random.default_rng(0)
    index = hr.build_index(
        hr.Catalog(np.stack([rng.integers(0, size, 200) for size in sizes], axis=1), codebook_sizes=sizes)
    )
    load(f"export_{framework}").export(index, tmp_path / "exported", WIDTH, BATCH)
    program = LOGITS + SEARCH.format(framework=framework, sizes=sizes, batch=BATCH, convert=CONVERT[framework])
    paths = os.pathsep.join([str(EXAMPLES), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", program, str(tmp_path / "exported")]
    finished = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    names = {}
    exec(LOGITS, names)
    device_index = index.to(framework)
    expected = hr.beam_search(
        device_index,
        lambda beams: array_of(framework, names["logits_of"](to_numpy(beams.codes), sizes[beams.level])),
        batch_size=BATCH,
        beam_width=WIDTH,
        kernel="array",
    )
    found = np.load(tmp_path / "exported/found.npz")
    np.testing.assert_array_equal(found["codes"], to_numpy(expected.codes))
    np.testing.assert_allclose(found["scores"], to_numpy(expected.scores), rtol=1e-5, atol=1e-5)
    assert len(np.unique(found["codes"][0], axis=0)) == WIDTH
