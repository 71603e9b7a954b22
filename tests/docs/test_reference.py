"""Hold the reference to the code: every public name is documented, and every example in a docstring runs."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "docs/_scripts"
pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("ray")


def load(name):
    """A module of docs/_scripts, which is not a package."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


public_names = load("public_names")
NAMES = public_names.public_names()
ERRORS_PAGE = load("errors_reference").errors_page()


def test_every_public_name_is_documented():
    rendered = public_names.directives(ROOT / "docs/reference") | set(public_names.DIRECTIVE.findall(ERRORS_PAGE))
    assert public_names.problems(lambda name: name.path in rendered or name.owner in rendered) == []


def test_reference_has_no_names_that_are_not_public():
    rendered = public_names.directives(ROOT / "docs/reference")
    assert rendered <= {name.path for name in NAMES}


# The examples of hedgerow.ray start Ray: tests/ray/test_examples.py.
EXAMPLES = [name for name in NAMES if name.examples and not name.path.startswith("hedgerow.ray.")]


@pytest.mark.parametrize("name", EXAMPLES, ids=lambda name: name.path)
def test_examples_run(name, tmp_path, monkeypatch):
    """The examples of one docstring share a namespace."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names = {"__name__": "example"}
    for number, example in enumerate(name.examples, 1):
        exec(compile(example, f"{name.path}, example {number}", "exec"), names)


def test_command_line_reference_has_every_command():
    page = load("cli_reference").cli_page()
    for heading in ("## hedgerow build", "## hedgerow live", "### hedgerow live add", "## hedgerow semantic-ids"):
        assert f"{heading}\n" in page
    assert "| `--codebook-sizes" in page
    assert "[/" not in page


def test_errors_reference_has_every_error():
    for name in ("HedgerowError", "CatalogError", "IndexFileError", "MissingDependencyError"):
        assert f"[hedgerow.{name}]" in ERRORS_PAGE
    assert "[`Catalog.from_parquet`][hedgerow.Catalog.from_parquet]" in ERRORS_PAGE
