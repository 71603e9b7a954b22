"""A server of vLLM with a tiny model, a live index and rules."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

START_SECONDS = 300


@dataclass(frozen=True)
class Server:
    """A running server, and what it serves."""

    url: str
    folder: Path
    process: subprocess.Popen

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def live(self) -> Any:
        import hedgerow as hr

        return hr.LiveIndex.open(self.folder / "items.live")


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    # Imports that fail would be errors of all tests in this folder.
    from vllm_engine import ENVIRONMENT, RULES, new_catalog, save_model

    import hedgerow as hr

    folder = tmp_path_factory.mktemp("vllm")
    save_model("qwen3", folder / "model")
    hr.LiveIndex.create(folder / "items.live", hr.build_index(new_catalog()))
    (folder / "rules.toml").write_text(RULES)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "HEDGEROW_INDEX": str(folder / "items.live"),
        "HEDGEROW_RULES": str(folder / "rules.toml"),
        "HEDGEROW_NORMALIZE": "vocab",
        "HEDGEROW_BEAM_WIDTH": "20,40",
        "HEDGEROW_FOLLOW_SECONDS": "0.2",
        "HEDGEROW_ALLOW_WHERE": "1",
        "HEDGEROW_DEADLINE_MS": "60000",
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder / "model")]
    command += ["--runner", "pooling", "--dtype", "float32", "--enforce-eager", "--max-model-len", "96"]
    command += ["--block-size", "32", "--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=os.environ | ENVIRONMENT | options, stdout=log, stderr=log)
    started = Server(f"http://127.0.0.1:{port}", folder, process)
    try:
        _wait(started)
        yield started
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait(server: Server) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        assert server.process.poll() is None, server.log[-4000:]
        try:
            with urllib.request.urlopen(f"{server.url}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"the server did not start: {server.log[-4000:]}")
