"""The log: JSON lines with request ids, and prompts only if the operator asks for them."""

import io
import logging
import signal
import sys
import threading
import warnings

import pytest
import uvicorn
from serve.support import TOKEN, create_app, logged_lines, served, service_of, started, wait_until

from hedgerow.serve.log import flush, log, take_over
from hedgerow.serve.server import Server
from hedgerow.serve.web import Web


class TestLines:
    def test_are_json(self, capsys):
        log("event", level="error", text="a\nb\u2028\ud800", number=5, path=io.StringIO, nothing=None)
        (line,) = logged_lines(capsys)
        assert list(line)[:3] == ["time", "level", "event"]
        assert (line["level"], line["event"], line["number"], line["nothing"]) == ("error", "event", 5, None)
        assert line["text"] == "a\nb\u2028\ud800"

    def test_of_many_threads_do_not_mix(self, capsys):
        threads = [
            threading.Thread(target=lambda: [log("event", text="x" * 1_000) for _ in range(20)]) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(logged_lines(capsys)) == 160

    @pytest.mark.parametrize("error", [OSError("nobody reads"), ValueError("closed")])
    def test_that_nobody_reads(self, error, monkeypatch):
        class Closed(io.StringIO):
            def write(self, _):
                raise error

        monkeypatch.setattr(sys, "stderr", Closed())
        log("event")


def test_messages_and_warnings_of_libraries_are_lines(capsys, monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    try:
        take_over()
        logging.getLogger("uvicorn.error").warning("Invalid HTTP %s", "request")
        logging.getLogger("other").info("not that important")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("careful", UserWarning, stacklevel=1)
    finally:
        logging.captureWarnings(capture=False)
    # Threads of other tests may end at this time, and write lines of their own.
    found = [line for line in logged_lines(capsys) if line["event"] == "message" and line["level"] == "warning"]
    messages = [line["message"] for line in found]
    assert "Invalid HTTP request" in messages
    assert "not that important" not in messages
    assert any("careful" in message for message in messages)


class TestRequests:
    def test_have_a_line_each(self, capsys):
        with started(service_of(), logs_requests=True, tokens=(TOKEN,)) as client:
            client.retrieve("w171 w172")
            client.post("/v1/retrieve", {"prompt": "w171 w172", "k": 0}, headers={"x-request-id": "mine"})
            client.apart().call("POST", "/v1/retrieve", headers={"authorization": "Bearer wrong"})
            client.get("/v1/index")
            client.post("/v1/retrieve", {"requests": [{"prompt": "w171"}, {"prompt": "w172"}]})
        found = [line for line in logged_lines(capsys) if line["event"] == "request"]
        assert [line["status"] for line in found] == [200, 400, 401, 200]
        assert [line["outcome"] for line in found] == ["ok", "invalid_request", "unauthorized", "ok"]
        assert found[1]["id"] == "mine"
        assert len({line["id"] for line in found}) == 4
        assert all(line["path"] == "/v1/retrieve" and line["ms"] > 0 for line in found)
        assert found[3]["requests"] == 2
        assert not any("w17" in str(line) for line in found)

    def test_have_prompts_if_the_operator_asks_for_them(self, capsys):
        with started(service_of(), logs_requests=True, logs_prompts=True) as client:
            client.retrieve("w171 w172")
            client.retrieve([171, 172])
            client.retrieve([{"role": "user", "content": "w171"}])
        found = [line["prompts"] for line in logged_lines(capsys) if line["event"] == "request"]
        assert found == [["w171 w172"], [[171, 172]], [[{"role": "user", "content": "w171"}]]]

    def test_have_no_line_if_the_operator_does_not_want_it(self, capsys):
        with started(service_of(), logs_requests=False) as client:
            client.retrieve()
        assert [line["event"] for line in logged_lines(capsys)] == ["loading", "loaded", "ready"]


class TestReadersThatStall:
    @pytest.fixture
    def stalled(self, monkeypatch):
        """A reader of the log that reads nothing until the event is set."""
        event = threading.Event()

        class Stalled(io.StringIO):
            def write(self, text):
                event.wait(60)
                return len(text)

        flush()
        monkeypatch.setattr(sys, "stderr", Stalled())
        yield event
        event.set()
        flush()

    def test_a_signal_is_handled(self, stalled):
        service = service_of()
        server = Server(uvicorn.Config(create_app(Web(service)), log_config=None), service)
        log("a line that waits")
        server.handle_exit(signal.SIGTERM, None)
        wait_until(lambda: server.should_exit)
        assert service.state == "draining"
        assert not stalled.is_set()

    def test_requests_are_answered(self, stalled):
        with started(service_of(), logs_requests=True) as client:
            assert [client.retrieve().status for _ in range(5)] == [200] * 5
        assert not stalled.is_set()


def test_a_second_signal_has_its_usual_effect(monkeypatch):
    """It ends the process at once: tests/serve/test_process.py."""
    service, calls = service_of(), []
    server = Server(uvicorn.Config(create_app(Web(service)), log_config=None), service)
    monkeypatch.setattr(signal, "signal", lambda *words: calls.append(words))
    monkeypatch.setattr(signal, "raise_signal", lambda *words: calls.append(words))
    server.handle_exit(signal.SIGTERM, None)
    assert calls == []
    server.handle_exit(signal.SIGTERM, None)
    assert calls == [(signal.SIGTERM, signal.SIG_DFL), (signal.SIGTERM,)]
    wait_until(lambda: server.should_exit)


def test_a_service_that_is_told_to_end_while_it_loads_does_not_become_ready(capsys):
    service = service_of()
    with served(service) as client:
        service.drain()
        service.start()
        assert service.state == "draining"
        assert client.retrieve().error["code"] == "draining"
    assert "ready" not in [line["event"] for line in logged_lines(capsys)]
