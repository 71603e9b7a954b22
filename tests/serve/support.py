"""A service of a tiny random model, in a thread of this process, and clients of it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("duckdb")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("orjson")
pytest.importorskip("prometheus_client")
pytest.importorskip("pydantic")

import uvicorn
from tiny import CODES, TOKENS, WORDS, catalog, model_of, word_tokenizer
from tiny import tokenizer as words_of_tiny

import hedgerow as hr
from hedgerow.hf import Retriever
from hedgerow.serve.asking import Ask
from hedgerow.serve.http import create_app
from hedgerow.serve.log import flush
from hedgerow.serve.protocol import LimitedProtocol
from hedgerow.serve.rules import Rule
from hedgerow.serve.server import Address, Server
from hedgerow.serve.service import Service, Source
from hedgerow.serve.settings import Limits, Settings
from hedgerow.serve.web import Web

TOKEN = "a-token-of-some-length"
TEMPLATE = "{% for message in messages %}{{ message['role'] }} {{ message['content'] }} {% endfor %}"
NUM_ITEMS = 150
FIRST_DAY = date(2020, 1, 1)
RULES = {
    "recent": "year >= 1950",
    "cheap": "price < 10",
    "made": "maker = 'someone'",
    "impossible": "year > 3000",
}
SETTINGS = Settings(
    beam_widths=(10, 20),
    max_batch=8,
    max_wait_ms=2.0,
    queue=64,
    deadline_ms=20_000.0,
    limits=replace(Limits(), prompt_tokens=40, prompt_characters=2_000),
)


def attributes_of(rows: int, *, first_year: int = 1900) -> dict[str, Any]:
    return {
        "title": [f"Thing [{row}]" for row in range(rows)],
        "year": [first_year + row // 2 for row in range(rows)],
        "kinds": [["a", "b"]] * rows,
        "maker": ["someone" if row % 2 else None for row in range(rows)],
        "price": [row / 8 for row in range(rows)],
        "released": [FIRST_DAY + timedelta(days=row) for row in range(rows)],
    }


@cache
def index() -> hr.TrieIndex:
    """150 items t0 to t149 with attributes; some items share a SID."""
    ids = [f"t{row}" for row in range(NUM_ITEMS)]
    return hr.build_index(
        hr.Catalog(catalog().sids, codebook_sizes=CODES, item_ids=ids, attributes=attributes_of(NUM_ITEMS))
    )


def more_items(*names: str, seed: int = 0) -> hr.Catalog:
    """Items with random SIDs and the attributes of `index`, to add to a live index."""
    sids = np.random.default_rng(seed).integers(0, CODES, (len(names), 3))
    attributes = attributes_of(len(names), first_year=1960)
    return hr.Catalog(sids, codebook_sizes=CODES, item_ids=list(names), attributes=attributes)


def opened(live: hr.LiveIndex) -> hr.LiveIndex:
    """A live index as another process sees it."""
    return hr.LiveIndex.open(live.path, headroom=1.5)


@cache
def tokenizer() -> Any:
    """The tokenizer of `tiny`, with a chat template."""
    made = word_tokenizer(words_of_tiny().get_vocab())
    made.chat_template = TEMPLATE
    return made


def retriever_of(searched: Any, **options: Any) -> Retriever:
    return Retriever(model_of("llama"), searched, TOKENS, tokenizer=tokenizer(), **options)


def text_of(prompt: list[int]) -> str:
    """Text whose tokens are those of a prompt."""
    return " ".join(f"w{token}" for token in prompt)


def random_prompt(rng: np.random.Generator, longest: int = 12) -> list[int]:
    return rng.integers(1, WORDS, rng.integers(1, longest + 1)).tolist()


def rules_of(**rules: str) -> dict[str, Rule]:
    return {name: Rule(where, where=where) for name, where in rules.items()}


def service_of(
    searched: Any = None,
    settings: Settings = SETTINGS,
    *,
    rules: Mapping[str, Rule] | None = None,
    canary: int | None = None,
    **options: Any,
) -> Service:
    """A service that has not been started, of an index or a live index."""
    searched = index() if searched is None else searched

    def opened() -> tuple[Retriever, hr.LiveIndex | None]:
        return retriever_of(searched, **options), searched if isinstance(searched, hr.LiveIndex) else None

    rules = rules_of(**RULES) if rules is None else rules
    return Service(Source(opened, model="tiny", index="things", rules=rules, canary=canary), settings)


def wait_until(is_true: Callable[[], Any], seconds: float = 30.0) -> None:
    """Wait until a function returns something true."""
    until = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < until, f"nothing happened in {seconds} seconds"
        time.sleep(0.005)


def logged_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return the lines of the log since the last call. A thread writes them, so that they may be late."""
    flush()
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def ask_of(prompt: Any, **fields: Any) -> Ask:
    options: dict[str, Any] = {"k": 5, "beam_width": 10} | fields
    return Ask(prompt, **options)


@dataclass(frozen=True)
class Reply:
    """The response to one request."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error of a refusal, which has the form of the contract."""
        error = self.document["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert isinstance(error["code"], str)
        return error

    @property
    def items(self) -> list[Any]:
        """The ids of the items of an answer."""
        assert self.status == 200, self.body
        return [item["item_id"] for item in self.document["items"]]


def assert_refused(reply: Reply, status: int, code: str, kind: str, param: str | None = None) -> None:
    """Check all of a refusal but its message."""
    assert reply.status == status, reply.body
    error = reply.error
    assert (error["code"], error["type"]) == (code, kind)
    assert error["param"] == param
    assert reply.headers["x-request-id"]
    assert reply.headers["content-type"] == "application/json"


@dataclass
class Client:
    """A client with one connection, which it keeps until `close`, or has anew for each call."""

    url: str
    token: str | None = None
    timeout: float = 60.0
    keeps: bool = True
    _connection: http.client.HTTPConnection | None = field(default=None, repr=False)

    def call(
        self, method: str, path: str, document: Any = None, *, body: Any = None, headers: Mapping[str, str] = {}
    ) -> Reply:
        if document is not None:
            body = json.dumps(document)
        sent = ({"authorization": f"Bearer {self.token}"} if self.token else {}) | dict(headers)
        if self._connection is None:
            self._connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=self.timeout)
        try:
            self._connection.request(method, path, body, sent)
            response = self._connection.getresponse()
            reply = Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        except BaseException:
            self.close()
            raise
        if not self.keeps:
            self.close()
        return reply

    def apart(self) -> Client:
        """Another client of the service, with a connection for each call."""
        return replace(self, keeps=False, _connection=None)

    def get(self, path: str, **options: Any) -> Reply:
        return self.call("GET", path, **options)

    def post(self, path: str, document: Any = None, **options: Any) -> Reply:
        return self.call("POST", path, document, **options)

    def retrieve(self, prompt: Any = "w1 w2", **fields: Any) -> Reply:
        return self.post("/v1/retrieve", {"prompt": prompt} | fields)

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """All samples of /metrics, by name and labels."""
        from prometheus_client.parser import text_string_to_metric_families

        text = self.get("/metrics").body.decode()
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def metric(self, name: str, **labels: str) -> float:
        """One sample of /metrics; 0 if there is none yet."""
        return self.metrics().get((name, frozenset(labels.items())), 0.0)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextmanager
def served(service: Service, **options: Any) -> Iterator[Client]:
    """Serve a service on a free port, in a thread; yields a client. `options` are those of `Web`."""
    web = Web(service, **{"logs_requests": False, **options})  # pyright: ignore[reportArgumentType]
    listener = Address(port=0).listen()
    # Clients of the tests may keep an idle connection for long.
    times: dict[str, Any] = {"timeout_keep_alive": 600, "timeout_graceful_shutdown": 5}
    config = uvicorn.Config(create_app(web), log_config=None, access_log=False, http=LimitedProtocol, **times)
    server = Server(config, service)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    wait_until(lambda: server.started)
    client = Client(f"http://127.0.0.1:{listener.getsockname()[1]}", web.tokens[0] if web.tokens else None)
    try:
        yield client
    finally:
        client.close()
        server.should_exit = True
        thread.join()
        service.close()


@contextmanager
def started(service: Service, **options: Any) -> Iterator[Client]:
    """As `served`, after the service has loaded."""
    service.start()
    assert service.state == "ready", service.error
    with served(service, **options) as client:
        yield client
