"""`--log-level`, and what the library logs."""

import logging
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import hedgerow as hr
from hedgerow.cli.main import app
from hedgerow.decode.kernels import dispatch


@pytest.fixture(autouse=True)
def log():
    """Restore the log after the test."""
    hedgerow, root = logging.getLogger("hedgerow"), logging.getLogger()
    before = hedgerow.level, root.handlers[:]
    yield hedgerow
    hedgerow.setLevel(before[0])
    root.handlers[:] = before[1]


@pytest.fixture
def index(tmp_path):
    hr.build_index(hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"])).save(tmp_path / "x.hedgerow")
    return tmp_path / "x.hedgerow"


def test_the_command_line_logs_to_stderr(index, tmp_path):
    done = CliRunner().invoke(app, ["--log-level", "INFO", "live", "init", str(tmp_path / "x.live"), str(index)])
    assert done.exit_code == 0, done.output
    assert "INFO hedgerow.indexes: loaded TrieIndex(" in done.stderr
    assert "INFO hedgerow.live.served:" in done.stderr
    assert "loaded version 1, with 2 items" in done.stderr
    assert "hedgerow.indexes" not in done.stdout


@pytest.mark.parametrize("options", [[], ["--log-level", "warning"]])
def test_silent_without_it(index, options):
    done = CliRunner().invoke(app, [*options, "verify", str(index)])
    assert done.exit_code == 0
    assert "hedgerow.indexes" not in done.output


def test_wrong_level():
    done = CliRunner().invoke(app, ["--log-level", "loud", "plan", "--items", "10"])
    assert done.exit_code == 2
    assert "debug" in done.stderr


def test_the_library_prints_nothing(tmp_path):
    program = f"""
import hedgerow as hr
index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"]))
live = hr.LiveIndex.create({str(tmp_path / "x.live")!r}, index)
try:
    live.remove(["a", "b"])
except hr.VersionError:
    pass
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_versions_in_the_log(tmp_path, caplog):
    caplog.set_level("INFO", "hedgerow")
    catalog = hr.Catalog([[0, 1], [2, 0], [2, 1]], item_ids=["a", "b", "c"])
    live = hr.LiveIndex.create(tmp_path / "x.live", hr.build_index(catalog))
    live.remove(["a"])
    assert "version 2 is current, with 2 items; before it, version 1" in caplog.text
    live.publish(hr.build_index(catalog))
    live.prune(keep=1)
    assert "deleted the versions [1, 2]; kept [3]" in caplog.text
    with pytest.raises(hr.VersionError):
        live.remove(["a", "b", "c"])
    assert "version 4 was not published: version 4 was refused: it has no items" in caplog.text
    next((tmp_path / "x.live/versions/3").glob("trie-*")).write_bytes(b"")
    with pytest.raises(hr.IndexFileError):
        hr.LiveIndex.open(tmp_path / "x.live")
    assert caplog.records[-1].levelname == "WARNING"
    assert "version 3 cannot be read" in caplog.text


def test_kernels_in_the_log(caplog, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(dispatch, "_logged", set())
    caplog.set_level("INFO", "hedgerow")
    index = hr.build_index(hr.Catalog(np.arange(8).reshape(4, 2), codebook_sizes=8192)).to("torch")
    logits = torch.zeros(1, 1, 8192, requires_grad=True)
    for _ in range(2):
        hr.step(index, hr.init_beams(index, 1), logits, beam_width=2)
    lines = [record.getMessage() for record in caplog.records if record.name == "hedgerow.decode.kernels.dispatch"]
    assert len(lines) == 1
    assert "steps run in the array kernel, because the native kernel cannot: the logits require a gradient" in lines[0]
    hr.step(index, hr.init_beams(index, 1), logits.detach(), beam_width=2)
    assert caplog.records[-1].getMessage() == "steps run in the native kernel"
