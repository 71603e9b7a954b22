"""Starts of `hedgerow serve` that fail: one clear line, and exit code 1."""

import shutil
import socket
import sys

import pytest
from commands import assert_refused
from serve.support import Service

import hedgerow as hr
from hedgerow.cli.main import main


@pytest.fixture
def call(monkeypatch, capsys):
    """Run `hedgerow serve`; returns the exit code, stdout, and the lines of stderr that are not of the log."""
    # It would write the warnings of the tests that follow into a log.
    monkeypatch.setattr("hedgerow.serve.server.take_over", lambda: None)
    start = Service.start

    def start_and_end(service):
        start(service)
        # A service that starts would run for ever.
        service.error = service.error or AssertionError("the service has started")

    monkeypatch.setattr(Service, "start", start_and_end)

    def run(*words, port=0):
        monkeypatch.setattr(sys, "argv", ["hedgerow", "serve", *map(str, words), "--port", str(port)])
        with pytest.raises(SystemExit) as stopped:
            main()
        stdout, stderr = capsys.readouterr()
        lines = [line for line in stderr.splitlines(keepends=True) if not line.startswith("{")]
        return int(stopped.value.code or 0), stdout, "".join(lines)

    return run


@pytest.fixture
def refused(call, shop):
    """Check that a start with options is refused with a message."""

    def check(expected, *options, model=None, index=None):
        called = call(model or shop.model, index or shop.index, *options)
        assert_refused(called, expected)

    return check


class TestFiles:
    def test_no_model(self, refused, tmp_path):
        refused("nothing", model=tmp_path / "nothing")

    def test_model_without_weights(self, refused, shop, tmp_path):
        shutil.copytree(shop.model, tmp_path / "empty")
        (tmp_path / "empty" / "model.safetensors").unlink()
        refused("cannot be loaded as a language model", model=tmp_path / "empty")

    def test_damaged_model(self, refused, shop, tmp_path):
        shutil.copytree(shop.model, tmp_path / "damaged")
        (tmp_path / "damaged" / "model.safetensors").write_bytes(b"nothing")
        refused("cannot be loaded as a language model", model=tmp_path / "damaged")

    def test_no_index(self, refused, tmp_path):
        refused("does not exist", index=tmp_path / "nothing.hedgerow")

    def test_index_that_does_not_fit_the_model(self, refused, tmp_path):
        hr.build_index(hr.Catalog([[0, 99, 0]])).save(tmp_path / "other.hedgerow")
        refused("", index=tmp_path / "other.hedgerow")

    def test_damaged_live_index(self, refused, shop):
        live = shop.live("damaged.live")
        (live / "current.json").write_text("{}")
        refused("current.json", index=live)

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (None, "cannot be read"),
            ("sets = ", "cannot be read"),
            ("[sets]\nrecent = 5", "must be an SQL expression"),
            ("[sets]\nnew = {newest = 'released'}", "must be an SQL expression"),
            ("[sets]\nnew = {newest = 'released', days = 7, more = 1}", "must be an SQL expression"),
            ("[set]\nrecent = 'year >= 1950'", "must have one table, [sets]; got set"),
            ("sets = 5", "must have one table"),
            ("[sets]\nrecent = 'year >'", "set 'recent' (year >)"),
            ("[sets]\nrecent = 'nothing = 1'", "set 'recent' (nothing = 1)"),
            ("[sets]\nnew = {newest = 'title', days = 7}", "set 'new' (title in the last 7 days)"),
            ("[sets]\nnew = {newest = 'released', days = -1}", "set 'new'"),
            ("[sets]\nnew = {newest = 'released', days = 'many'}", "set 'new'"),
        ],
    )
    def test_rules(self, content, expected, refused, tmp_path):
        if content is not None:
            (tmp_path / "rules.toml").write_text(content)
        refused(expected, "--rules", tmp_path / "rules.toml")

    @pytest.mark.parametrize(
        "content", [None, b"", b"short", b"a token with spaces in it", b"\xff" * 20, "ü" * 20, "a" * 16 + "\nshort"]
    )
    def test_token(self, content, refused, tmp_path):
        if content is not None:
            data = content if isinstance(content, bytes) else content.encode()
            (tmp_path / "token").write_bytes(data)
        refused("--token-file", "--token-file", tmp_path / "token")


class TestAddresses:
    def test_port_in_use(self, call, shop):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            called = call(shop.model, shop.index, port=port)
        assert_refused(called, f"cannot listen on 127.0.0.1:{port}: ")

    def test_port_that_does_not_exist(self, call, shop):
        assert_refused(call(shop.model, shop.index, port=70_000), "cannot listen on 127.0.0.1:70000: ")

    def test_host_that_does_not_exist(self, refused):
        refused("cannot listen on 999.1.1.1", "--host", "999.1.1.1")


class TestOptions:
    def test_canary_of_a_version_that_does_not_exist(self, refused, shop):
        small = ("--max-batch", 1, "--beam-width", 5)
        refused("version 9", "--canary", "0.05:9", *small, index=shop.live("canary.live"))

    @pytest.mark.parametrize("option", [("--follow",), ("--canary", "0.5:1")])
    def test_versions_of_an_index_that_is_not_live(self, option, refused):
        refused("--follow and --canary need a live index", *option)

    @pytest.mark.parametrize(
        "options",
        [
            ("--canary", "much:1"),
            ("--canary", "0.5"),
            ("--canary", "1.5:1"),
            ("--canary", "0:1"),
            ("--canary", "nan:1"),
            ("--canary", "0.5:0"),
            ("--beam-width", "many"),
            ("--beam-width", "0"),
            ("--beam-width", "-5,10"),
            ("--beam-width", ""),
            ("--max-batch", "0"),
            ("--queue", "0"),
            ("--deadline-ms", "0"),
            ("--deadline-ms", "nan"),
            ("--max-wait-ms", "-1"),
            ("--follow-seconds", "0"),
            ("--nothing",),
        ],
    )
    def test_wrong_usage(self, options, call, shop):
        code, stdout, stderr = call(shop.model, shop.live(f"usage {options}.live".replace("/", "")), *options)
        assert (code, stdout) == (2, "")
        assert options[0] in stderr

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            (("--normalize", "all"), "normalize"),
            (("--temperature", "0"), "temperature"),
            (("--temperature", "nan"), "temperature"),
            (("--dtype", "int8"), "dtype"),
            (("--device", "nothing"), "device"),
            (("--tokens", "<nothing_{level}_{code}>"), ""),
        ],
    )
    def test_options_of_the_retriever(self, options, expected, refused):
        refused(expected, *options)

    def test_model_without_index(self, call, shop):
        code, _, stderr = call(shop.model)
        assert code == 2
        assert "neither for the films demo" in stderr


def test_an_unexpected_error_while_loading_ends_the_process(shop, monkeypatch):
    """Otherwise the service would be cold for ever."""

    def fail(*_, **__):
        raise RuntimeError("no memory on the device")

    monkeypatch.setattr("hedgerow.hf.loading.load_retriever", fail)
    monkeypatch.setattr("hedgerow.serve.server.take_over", lambda: None)
    monkeypatch.setattr(sys, "argv", ["hedgerow", "serve", str(shop.model), str(shop.index), "--port", "0"])
    with pytest.raises(RuntimeError, match="no memory on the device"):
        main()
