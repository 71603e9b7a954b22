"""Trainings that end in the middle: killed while a checkpoint is written, on a full disk; and in several processes."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from training.shop import OPTIONS, histories, shop

import hedgerow as hr

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from safetensors.torch import load_file  # noqa: E402

from hedgerow.training import train  # noqa: E402
from hedgerow.training.folders import Folders  # noqa: E402
from hedgerow.training.trainer import HistoryTrainer  # noqa: E402

# Trains; KILLED is the method of the Trainer in whose second call the process is killed, with half of its file written.
PROGRAM = """
import os, signal, sys
from pathlib import Path
from training.shop import OPTIONS, histories, shop
from hedgerow.training import train
from hedgerow.training.trainer import HistoryTrainer

method, file, folder = sys.argv[1:]
write, calls = getattr(HistoryTrainer, method), []

def killed(trainer, output_dir, *rest, **options):
    write(trainer, output_dir, *rest, **options)
    calls.append(output_dir)
    if len(calls) == 2:
        path = Path(output_dir, file)
        os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

setattr(HistoryTrainer, method, killed)
index = shop()
train(index, histories(index), folder, **OPTIONS)
"""


def program(*words, **environment):
    """A program in a process of its own, which finds the modules of the tests."""
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=variables, check=False, timeout=300
    )


@pytest.fixture(scope="module")
def index():
    return shop()


@pytest.fixture(scope="module")
def whole(index, tmp_path_factory):
    """The weights of a training that was not interrupted."""
    report = train(index, histories(index), tmp_path_factory.mktemp("whole") / "model", **OPTIONS)
    return load_file(report.folder / "model.safetensors")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
@pytest.mark.parametrize(
    ("method", "file"),
    [("_save", "model.safetensors"), ("_save_optimizer_and_scheduler", "optimizer.pt")],
)
def test_killed_in_the_middle_of_a_checkpoint(index, whole, tmp_path, method, file):
    folder = tmp_path / "model"
    ended = program("-c", PROGRAM, method, file, str(folder))
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not folder.exists()
    names = {path.name for path in Folders(folder).hidden.glob("checkpoint-*")}
    last = Folders(folder).last_checkpoint()
    assert last is not None
    assert len(names) == 2
    assert last.name == min(names, key=lambda name: int(name.rpartition("-")[2]))
    report = train(index, histories(index), folder, resume=True, **OPTIONS)
    found = load_file(report.folder / "model.safetensors")
    assert all(torch.equal(found[name], whole[name]) for name in whole)
    assert not Folders(folder).hidden.exists()


@pytest.mark.parametrize("kind", ["os", "torch"])
def test_a_full_disk(index, whole, tmp_path, monkeypatch, kind):
    folder = tmp_path / "model"

    def full(*_, **__):
        if kind == "os":
            raise OSError(errno.ENOSPC, "No space left on device")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 100, 0))  # pyright: ignore
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 224704 vs 224592")

    with monkeypatch.context() as patched:
        patched.setattr(HistoryTrainer, "_save_optimizer_and_scheduler", full)
        with pytest.raises(hr.ArgumentError, match=r"the disk of .*\.model\.training is full.*--resume"):
            train(index, histories(index), folder, **OPTIONS)
    assert not folder.exists()
    monkeypatch.undo()
    report = train(index, histories(index), folder, resume=True, **OPTIONS)
    found = load_file(report.folder / "model.safetensors")
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_other_errors_stay_as_they_are(index, tmp_path, monkeypatch):
    def failing(*_, **__):
        raise RuntimeError("something else")

    monkeypatch.setattr(HistoryTrainer, "_save_optimizer_and_scheduler", failing)
    with pytest.raises(RuntimeError, match="something else"):
        train(index, histories(index), tmp_path / "model", **OPTIONS)


def test_logs_for_tensorboard(index, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options: dict[str, Any] = OPTIONS | {"epochs": 1, "tensorboard": True}
    report = train(index, histories(index), tmp_path / "model", **options)
    (events,) = (report.folder / "logs").rglob("events.out.tfevents.*")
    read = EventAccumulator(str(events.parent)).Reload()
    recall = read.Scalars("eval/recall@10")
    assert [event.value for event in recall] == pytest.approx([entry["recall@10"] for entry in report.validations])


def test_two_processes(tmp_path):
    pytest.importorskip("torch.distributed.run")
    shop().save(tmp_path / "shop.hedgerow")
    from pyarrow import parquet
    from training.shop import clicks

    parquet.write_table(clicks(), tmp_path / "clicks.parquet")
    words = [str(tmp_path / "shop.hedgerow"), str(tmp_path / "clicks.parquet"), "--size", "tiny", "--epochs", "1"]
    words += ["--device", "cpu", "--validation-users", "20", "--json", "-o"]
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0", "--standalone"]
    one = program("-m", "hedgerow", "train", *words, str(tmp_path / "one"))
    two = program(*launch, "-m", "hedgerow", "train", *words, str(tmp_path / "two"), OMP_NUM_THREADS="1")
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    # Half as many steps per epoch; one document, that of the first process.
    steps = [json.loads(done.stdout)["validations"][-1]["step"] for done in (one, two)]
    assert steps[1] == -(-steps[0] // 2)
    assert json.loads(two.stdout)["parameters"] == json.loads(one.stdout)["parameters"]
    assert (
        load_file(tmp_path / "two" / "model.safetensors").keys()
        == load_file(tmp_path / "one" / "model.safetensors").keys()
    )
