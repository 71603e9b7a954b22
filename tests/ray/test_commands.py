"""`hedgerow build --ray`."""

import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from saved import contents

from hedgerow.cli.main import main


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a command line; returns the exit code, stdout and stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["hedgerow", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0), *capsys.readouterr()

    return run


def test_build(call, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "items").mkdir()
    for number in range(6):
        sids = pa.array(rng.integers(0, 9, (50, 3)).tolist())
        table = pa.table({"sid": sids, "name": [f"{number} {row}" for row in range(50)], "price": rng.random(50)})
        pq.write_table(table, tmp_path / "items" / f"{number}.parquet")
    words = [tmp_path / "items", "--item-id", "name", "--codebook-sizes", "9"]
    code, stdout, _ = call("build", *words, "-o", tmp_path / "ray", "--ray", "--workers", "2", "--json")
    assert code == 0
    assert json.loads(stdout)["items"] == 300
    assert call("build", *words, "-o", tmp_path / "one")[0] == 0
    assert contents(tmp_path / "ray") == contents(tmp_path / "one")
    for wrong in (["--ray", "--ragged"], ["--ray", "--dense-levels", "0"], ["--workers", "2"]):
        assert call("build", *words, "-o", tmp_path / "wrong", *wrong)[0] == 2
    code, _, stderr = call("build", tmp_path / "items", "--item-id", "none", "-o", tmp_path / "wrong", "--ray")
    assert (code, "there is no item id column 'none'" in stderr) == (1, True)
    assert not (tmp_path / "wrong").exists()
