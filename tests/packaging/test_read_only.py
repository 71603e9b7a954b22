"""Where no folder can be written, as in a container with a read-only file system, compiled functions are not stored."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import hedgerow as hr

PROGRAM = """
import warnings
import numpy as np
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import hedgerow as hr
    from hedgerow.decode.kernels import numba, walk_numba
    from hedgerow.constraints import alive_numba
    from hedgerow.index import splice
    index = hr.build_index(hr.Catalog(np.arange(60).reshape(20, 3) % 7, codebook_sizes=7))
    kept = index.filter(index.constraint(ids=range(0, 20, 2)))
    logits = lambda beams: np.zeros((*beams.states.shape, 7), np.float32)
    options = {"batch_size": 1, "beam_width": 9, "constraints": index.constraint(ids=[3]), "kernel": "numba"}
    beams = hr.beam_search(index, logits, **options)
print(hr.__file__, len(kept), index.results(beams)[0].item_ids[:1])
print(*(str(warning.message) for warning in caught if "NUMBA_CACHE_DIR" in str(warning.message)), sep="\\n")
"""


def run(package: Path, **environment: str) -> list[str]:
    kept = {
        name: value for name, value in os.environ.items() if name not in ("HOME", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME")
    }
    done = subprocess.run(
        [sys.executable, "-B", "-c", PROGRAM],
        env=kept | {"PYTHONPATH": str(package)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_no_folder_for_compiled_functions(tmp_path):
    source = Path(hr.__file__).parent
    shutil.copytree(source, tmp_path / "hedgerow", ignore=shutil.ignore_patterns("__pycache__", "page", "data"))
    # A file, as the superuser can write to any folder.
    for folder in (tmp_path / "hedgerow").rglob("*.py"):
        (folder.parent / "__pycache__").touch()
    (tmp_path / "file").touch()
    first, *warned = run(tmp_path, HOME=str(tmp_path / "file"))
    assert first.split()[1:] == ["10", "[3]"]
    assert first.startswith(str(tmp_path))
    assert len(warned) == 1
    assert warned[0].startswith("Numba can write compiled functions to no folder")
    # With a folder for them, they are stored, and nothing is said.
    (tmp_path / "cache").mkdir()
    found = run(tmp_path, HOME=str(tmp_path / "file"), NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert len(found) == 2
    assert not found[1]
    assert list((tmp_path / "cache").rglob("*.nbi"))
