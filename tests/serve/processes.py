"""`hedgerow serve` in a process of its own, and clients that keep it busy."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve.support import Client, wait_until

# Importing PyTorch and transformers takes long on a busy machine.
START_SECONDS = 120.0


@dataclass(frozen=True)
class Process:
    """A process, and its log."""

    popen: subprocess.Popen
    log: Path
    token: str | None

    def lines(self) -> list[dict[str, Any]]:
        """The lines of the log, all of which must be JSON; without a last one that is being written."""
        return [json.loads(line) for line in self.log.read_text().split("\n")[:-1]]

    def wait_for(self, event: str) -> dict[str, Any]:
        """Wait for the line of an event."""
        found: list[dict[str, Any]] = []

        def happened() -> bool:
            assert self.popen.poll() is None, self.log.read_text()
            found.extend(line for line in self.lines() if line["event"] == event)
            return bool(found)

        wait_until(happened, START_SECONDS)
        return found[0]

    @property
    def client(self) -> Client:
        """A client with a connection for each call."""
        return Client(self.wait_for("listening")["url"], self.token, keeps=False)


@contextmanager
def running(log: Path, *words: Any, token: str | None = None) -> Iterator[Process]:
    """Run `hedgerow serve` on a free port. Whatever is left of it at the end is killed."""
    command = [sys.executable, "-m", "hedgerow", "serve", *map(str, words), "--port", "0"]
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr) as popen,
    ):
        try:
            yield Process(popen, log, token)
        finally:
            popen.kill()


class Busy(threading.Thread):
    """A client that sends one request after another until nobody answers. `replies` has when each began and ended, and
    its status; or the name of the exception, if there was no response."""

    def __init__(self, client: Client, document: dict[str, Any]) -> None:
        super().__init__()
        self.client, self.document = client, document
        self.replies: list[tuple[float, float, int | str]] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.is_set():
            began = time.monotonic()
            try:
                status: int | str = self.client.post("/v1/retrieve", self.document).status
            except (OSError, http.client.HTTPException) as error:
                status = type(error).__name__
            self.replies.append((began, time.monotonic(), status))
            if isinstance(status, str):
                break
        self.client.close()


@contextmanager
def busy(clients: list[Client], document: dict[str, Any]) -> Iterator[list[Busy]]:
    """Clients that send requests until the end of the block, or until nobody answers."""
    threads = [Busy(client, document) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.stopped.set()
        for thread in threads:
            thread.join()
