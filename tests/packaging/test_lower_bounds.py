"""constraints-lowest.txt has the lower bounds of pyproject.toml."""

import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
# Extras of tools that make test-lowest does not install.
TOOLS = {"docs", "fuzz"}
# PyTorch's lowest version has no build without CUDA on PyPI. The others are tools that no test imports.
NOT_TESTED = {"torch", "build", "import-linter", "pyright", "ruff"}


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for name in extras.keys() - TOOLS for line in extras[name])]
    return [required for line in lines if (required := Requirement(line)).name != "hedgerow"]


def test_every_lower_bound_is_the_version_of_the_tests():
    lines = (ROOT / "constraints-lowest.txt").read_text("utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    for required in requirements():
        if required.specifier and required.name not in NOT_TESTED:
            (bound,) = [part.version for part in required.specifier if part.operator in (">=", "==")]
            assert Version(tested[required.name]) == Version(bound), required.name


def test_transformers_has_an_upper_bound_that_the_installed_version_fulfils():
    (required,) = (required for required in requirements() if required.name == "transformers")
    assert "5.999" in required.specifier
    assert "6.0" not in required.specifier
    assert metadata.version("transformers") in required.specifier
