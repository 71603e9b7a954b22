"""One file has the version: everything else agrees with it."""

import re
import tomllib
from pathlib import Path

import hedgerow as hr

ROOT = Path(__file__).parents[2]


def first(pattern: str, file: str) -> str:
    found = re.search(pattern, (ROOT / file).read_text("utf-8"), re.M)
    assert found, f"{file} has no match for {pattern}"
    return found[1]


def test_the_version_is_a_plain_release():
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc|\.dev)\d+)?", hr.__version__)


def test_the_package_metadata_reads_the_version_file():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert "version" not in project["project"]
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "hedgerow._version.__version__"}
    assert first(r'^__version__ = "(.+)"$', "src/hedgerow/_version.py") == hr.__version__


def test_the_citation_has_the_version():
    assert first(r"^version: (\S+)$", "CITATION.cff") == hr.__version__


def test_the_newest_release_of_the_changelog_is_the_version():
    assert first(r"^## \[(\d[^\]]*)\]", "CHANGELOG.md") == hr.__version__
