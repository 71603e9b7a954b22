"""Running a service: the web server, from the first log line to the end of the queue."""

from __future__ import annotations

import os
import signal
import socket
import threading
from dataclasses import dataclass
from typing import Any

import uvicorn

from hedgerow.errors import ArgumentError
from hedgerow.serve.http import create_app
from hedgerow.serve.log import flush, log, take_over
from hedgerow.serve.otel import traced
from hedgerow.serve.protocol import LimitedProtocol
from hedgerow.serve.service import Service
from hedgerow.serve.web import Web

# Seconds between the last answer and the end, in which clients see that the service is not ready any more.
GRACE_SECONDS = 0.5
DRAIN_LOOK_SECONDS = 0.05
BACKLOG, MAX_CONNECTIONS = 2048, 4096
# Addresses that other machines do not reach.
LOOPBACK = ("127.0.0.1", "::1")
# Seconds to wait for connections when the service ends.
END_SECONDS = 10


@dataclass(frozen=True)
class Address:
    """Where a service listens."""

    host: str = "127.0.0.1"
    port: int = 8000

    def listen(self) -> socket.socket:
        """Open the socket. From then on clients can connect, and wait until the server accepts them.

        Raises:
            ArgumentError: the address cannot be used.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = None
        try:
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
            listener.listen(BACKLOG)
        except (OSError, OverflowError) as error:
            if listener is not None:
                listener.close()
            raise ArgumentError(f"cannot listen on {self.host}:{self.port}: {error}") from None
        return listener


class Server(uvicorn.Server):
    """A server that answers what it has accepted before it ends.

    On SIGTERM and SIGINT it refuses new requests, finishes those in the queue, waits a moment, and ends. On the second
    signal it ends at once.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service, self._is_ending = service, False

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Handle a signal."""
        if self._is_ending:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        if sig not in (signal.SIGTERM, signal.SIGINT):
            super().handle_exit(sig, frame)
            return
        self._is_ending = True
        self.service.leaving = True
        name = signal.Signals(sig).name
        threading.Thread(target=self._end_when_idle, args=(name,), name="hedgerow-drain", daemon=True).start()

    def _end_when_idle(self, name: str) -> None:
        log("draining", signal=name)
        pause = threading.Event()
        pause.wait(self.service.settings.drain_seconds)
        self.service.drain()
        while not self.service.is_idle:
            pause.wait(DRAIN_LOOK_SECONDS)
        pause.wait(GRACE_SECONDS)
        self.should_exit = True


def run(web: Web, address: Address, *, otel: bool = False) -> None:
    """Serve until a signal ends the process.

    Args:
        web: the service and its access.
        address: where to listen.
        otel: whether to send traces with OpenTelemetry.

    Raises:
        ArgumentError: the address cannot be used.
        MissingDependencyError: `otel` is set, and OpenTelemetry is not installed.
        HedgerowError: the model or the index cannot be loaded.
    """
    service, listener = web.service, address.listen()
    take_over()
    host, port = listener.getsockname()[:2]
    app = create_app(web)
    config = uvicorn.Config(
        traced(app) if otel else app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=END_SECONDS,
        limit_concurrency=MAX_CONNECTIONS,
        backlog=BACKLOG,
        http=LimitedProtocol,
    )
    server = Server(config, service)

    def loaded() -> None:
        if service.error is not None:
            server.should_exit = True

    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{port}"
    log("listening", url=url, page=f"{url}/ui", token=bool(web.tokens))
    if not web.tokens and host not in LOOPBACK:
        message = "anybody who reaches this address can search; pass --token-file"
        log("no_token", level="warning", message=message)
    service.start_in_background(loaded)
    try:
        server.run(sockets=[listener])
    finally:
        service.close()
    if service.error is not None:
        log("failed", level="error", error=f"{type(service.error).__name__}: {service.error}")
        flush()
        raise service.error
    log("stopped")
    flush()
    if service.is_starting:
        # The thread that loads the model is inside PyTorch; it would end the process with an error.
        os._exit(0)
