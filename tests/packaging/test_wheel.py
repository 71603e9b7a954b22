"""Build the sdist and the wheel, install the wheel without extras in an empty environment, and use it there.

`make test-wheel` runs this module. The other tests do not need a package index, so `make test` skips it.
"""

import email
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
import venv
import zipfile
from email.message import Message
from pathlib import Path

import pytest

if "HEDGEROW_TEST_WHEEL" not in os.environ:
    pytest.skip("make test-wheel runs these tests: they download packages", allow_module_level=True)

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "hedgerow"
# Packages that only extras need.
OPTIONAL = ("torch", "jax", "transformers", "tokenizers", "duckdb", "matplotlib", "faiss", "sentence_transformers")


def run(*words: str | Path, cwd: Path) -> str:
    # Nothing of the checkout may be importable.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the sdist, and of the wheel that is built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    # From a copy: setuptools adds files that a stale src/*.egg-info lists.
    skipped = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build")
    shutil.copytree(ROOT, folder / "checkout", ignore=skipped)
    run(sys.executable, "-m", "build", "--outdir", folder, folder / "checkout", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (wheel,) = dist.glob("*.whl")
    # One wheel for CPython 3.11 and all later versions, with compiled functions.
    assert wheel.name.split("-")[2:4] == ["cp311", "abi3"]
    return wheel


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as files:
        (name,) = (name for name in files.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(files.read(name))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the programs of an environment that has the wheel and the packages that it requires."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    constraints = ROOT / "constraints.txt"
    run(programs / "python", "-m", "pip", "install", "--quiet", "--no-compile", "-c", constraints, wheel, cwd=folder)
    return programs


@pytest.fixture
def python(installed: Path, tmp_path: Path):
    def python(code: str) -> str:
        return run(installed / "python", "-I", "-W", "error", "-c", textwrap.dedent(code), cwd=tmp_path)

    return python


@pytest.fixture
def hedgerow(installed: Path, tmp_path: Path):
    def hedgerow(*words: str) -> str:
        return run(installed / "hedgerow", *words, cwd=tmp_path)

    return hedgerow


def names_of(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {f"hedgerow/{path.relative_to(folder).as_posix()}" for path in files}


def test_the_wheel_has_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as files:
        names = {name for name in files.namelist() if ".dist-info/" not in name}
        licenses = [name for name in files.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
    assert names == names_of(SOURCE)
    assert len(licenses) == 1
    assert "hedgerow/py.typed" in names
    assert any(name.startswith("hedgerow/demo/data/") for name in names)


def test_the_sdist_has_what_a_build_needs(dist):
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert {"pyproject.toml", "setup.py", "README.md", "LICENSE"} <= names
    assert {f"src/{name}" for name in names_of(SOURCE) if not name.endswith(".so")} <= names
    assert {f"src/native/{path.name}" for path in (SOURCE.parent / "native").iterdir()} <= names


def test_metadata(metadata):
    import hedgerow as hr

    assert metadata["Name"] == "hedgerow"
    assert metadata["Version"] == hr.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_all("Project-URL")
    classifiers = metadata.get_all("Classifier", [])
    for version in ("3.11", "3.12", "3.13"):
        assert f"Programming Language :: Python :: {version}" in classifiers
    assert "Typing :: Typed" in classifiers


def test_no_extra_is_required(metadata):
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    names = {re.split(r"[^\w-]", line)[0] for line in required}
    assert names == {"array-api-compat", "numpy", "pyarrow", "rich", "safetensors", "typer"}
    # A requirement without a lower bound accepts releases that never worked.
    assert all(">=" in line for line in required)


def test_import_and_search(python):
    python(f"""
        from importlib.util import find_spec

        import numpy as np

        import hedgerow as hr

        assert not [name for name in {OPTIONAL} if find_spec(name)]
        catalog = hr.Catalog([[0, 1], [1, 0], [1, 2]], item_ids=["a", "b", "c"], attributes={{"year": [1, 2, 3]}})
        index = hr.build_index(catalog)
        index.save("three.hedgerow")
        index = hr.load_index("three.hedgerow")
        scores = [np.array([[[5.0, 4.0]]]), np.array([[[0.0, 9.0, 0.0], [9.0, 0.0, 1.0]]])]
        beams = hr.beam_search(index, lambda beams: scores[beams.level], batch_size=1, beam_width=2)
        (results,) = index.results(beams)
        assert [item["item_id"] for item in results] == ["a", "b"]
    """)


def test_an_extra_that_is_missing_is_named(python):
    python("""
        import hedgerow as hr

        try:
            hr.build_index(hr.Catalog([[0, 1]])).to("torch")
        except hr.MissingDependencyError as error:
            assert "hedgerow[torch]" in str(error)
        else:
            raise AssertionError("PyTorch is not installed")
    """)


def test_the_demo_data_is_read(python):
    code = """
        from importlib.resources import files

        import pyarrow.parquet as pq

        print(pq.read_metadata(files("hedgerow") / "demo" / "data" / "films.parquet").num_rows)
    """
    assert int(python(code)) > 10_000


def test_version_of_the_command(hedgerow):
    import hedgerow as hr

    assert hedgerow("--version").strip() == f"hedgerow {hr.__version__}"


@pytest.mark.parametrize("name", ["items.parquet", "items.json"])
def test_build_inspect_and_verify(hedgerow, python, tmp_path, name):
    if name == "items.json":
        (tmp_path / name).write_text('{"a": [0, 1], "b": [1, 0], "c": [1, 2]}')
    else:
        python(f"""
            import pyarrow as pa, pyarrow.parquet as pq
            pq.write_table(pa.table({{"item_id": ["a", "b", "c"], "sid": [[0, 1], [1, 0], [1, 2]]}}), {name!r})
        """)
    hedgerow("build", name, "-o", "items.hedgerow")
    assert json.loads(hedgerow("inspect", "items.hedgerow", "--json"))
    hedgerow("verify", "items.hedgerow")
    assert python("import hedgerow as hr; print(len(hr.load_index('items.hedgerow')))").strip() == "3"
