"""Where no folder can be written, as in a container with a read-only file system and no home, everything works."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import hedgerow as hr
from hedgerow._compiled import native

PROGRAM = """
import warnings
import numpy as np
warnings.simplefilter("error")
import hedgerow as hr
index = hr.build_index(hr.Catalog(np.arange(60).reshape(20, 3) % 7, codebook_sizes=7))
kept = index.filter(index.constraint(ids=range(0, 20, 2)))
logits = lambda beams: np.zeros((*beams.states.shape, 7), np.float32)
options = {"batch_size": 1, "beam_width": 9, "constraints": index.constraint(ids=[3])}
beams = hr.beam_search(index, logits, **options)
print(hr.__file__, len(kept), index.results(beams)[0].item_ids[:1])
"""


def test_without_a_folder_to_write_to(tmp_path):
    shutil.copytree(
        Path(hr.__file__).parent, tmp_path / "hedgerow", ignore=shutil.ignore_patterns("__pycache__", "page", "data")
    )
    # Files, as the superuser can write to any folder.
    for folder in (tmp_path / "hedgerow").rglob("*.py"):
        (folder.parent / "__pycache__").touch()
    (tmp_path / "file").touch()
    kept = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=kept | {"PYTHONPATH": str(tmp_path), "HOME": str(tmp_path / "file")},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stdout.split() == [str(tmp_path / "hedgerow" / "__init__.py"), "10", "[3]"]


def test_the_compiled_module_is_built_where_there_is_a_compiler():
    assert native is not None or shutil.which("cc") is None
