"""`bench serve`: the speed of a running service, with the validity of every answer checked."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np
from rich.console import Console

from hedgerow.bench import machine
from hedgerow.bench.records import Report, Row
from hedgerow.errors import ArgumentError, HedgerowError
from hedgerow.trie_index import TrieIndex

PROMPTS = (
    "Recommend me a western",
    "A French comedy",
    "Science fiction of the eighties",
    "A film about a bank robbery",
    "An animated film for children",
    "A documentary about music",
    "A war film from the sixties",
    "A romantic drama set in Italy",
)
# The index of a version, by its number.
IndexOf = Callable[[int | None], TrieIndex]
# The shares of requests by their rules.
MIXES = {"none": ("plain",), "mixed": ("plain", "plain", "set", "exclude", "candidates", "set+exclude")}
MAX_FAULTS = 5
MAX_KNOWN_ITEMS = 2_000


@dataclass(frozen=True)
class Load:
    """The load of one measurement.

    Attributes:
        clients: requests in flight at most; with a rate, the limit that keeps an overloaded service from many.
        rate: requests per second that arrive independently of the answers (open loop); None: each client sends its
            next request when it has its answer (closed loop).
        seconds: the length of the measurement.
        warm_seconds: seconds before it that are not counted.
        k: items per request.
        beam_width: beams per request; None: the default of the service.
        mix: a key of MIXES.
    """

    clients: int = 32
    rate: float | None = None
    seconds: float = 10.0
    warm_seconds: float = 2.0
    k: int = 10
    beam_width: int | None = None
    mix: str = "mixed"

    @property
    def name(self) -> str:
        """How the load is called in tables."""
        return f"{self.clients} clients" if self.rate is None else f"{self.rate:g} requests/s"


@dataclass
class Outcome:
    """What was seen.

    Attributes:
        seconds: the time of each answer.
        statuses: how often each status was seen; 0: no answer.
        faults: what was wrong with answers.
        items: the number of items returned.
        batch_sizes: the size of the batch of each answer.
        elapsed: the length of the measurement in seconds.
    """

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    items: int = 0
    batch_sizes: list[int] = field(default_factory=list)
    elapsed: float = 0.0


@dataclass(frozen=True)
class Seen:
    """An answer, for the comparison with the index after the measurement.

    Attributes:
        version: the number of the version.
        sets: the sets of the request.
        sids: the SID of each item.
    """

    version: int | None
    sets: tuple[str, ...]
    sids: dict[Any, list[int]]


@dataclass(frozen=True)
class Facts:
    """What an index says of its items.

    Attributes:
        sids: the SID of each item.
        allowed: the items of each set, of those that do not depend on the time.
    """

    sids: dict[Any, list[int]]
    allowed: dict[str, set[Any]]

    @classmethod
    def of(cls, index: TrieIndex, rules: Mapping[str, str]) -> Facts:
        """Read an index."""
        ids = index.item_ids.to_pylist()
        sids = [[code for code in sid if code >= 0] for sid in index.sids_of(ids).tolist()]
        allowed = {}
        for name, rule in rules.items():
            # A window of time moves.
            with suppress(HedgerowError):
                allowed[name] = {ids[row] for row in np.flatnonzero(index.where(rule).mask)}
        return cls(dict(zip(ids, sids, strict=True)), allowed)

    def fault(self, seen: Seen) -> str | None:
        """What is wrong with the items of an answer; None if nothing is."""
        for name in seen.sets:
            if name in self.allowed and (shown := seen.sids.keys() - self.allowed[name]):
                return f"item {min(shown, key=str)} is not in set {name!r}"
        for item_id, sid in seen.sids.items():
            if sid != self.sids.get(item_id):
                return f"item {item_id} has SID {sid}, not that of the index"
        return None


class Requests:
    """Makes requests of a mix of rules, and checks their answers.

    Args:
        described: the document of /v1/index.
        prompts: the prompts, in turn.
        load: the load.
        index: the index of a version, by its number, to check that items exist and are in the sets; None: they are not
            checked.
        seed: of the order of rules.
    """

    def __init__(
        self, described: dict[str, Any], prompts: Sequence[str], load: Load, index: IndexOf | None, seed: int = 0
    ) -> None:
        self._load, self._random, self._prompts = load, random.Random(seed), itertools.cycle(prompts)
        self._sets = [entry["name"] for entry in described["sets"] if entry["num_items"]]
        self._rules = {entry["name"]: entry["rule"] for entry in described["sets"]}
        self._known: list[Any] = []
        self._index = index
        self._seen: list[Seen] = []

    def next(self) -> dict[str, Any]:
        """Make a request."""
        kind = self._random.choice(MIXES[self._load.mix])
        body: dict[str, Any] = {"prompt": next(self._prompts), "k": self._load.k, "fields": []}
        if self._load.beam_width is not None:
            body["beam_width"] = self._load.beam_width
        if "set" in kind and self._sets:
            body["sets"] = [self._random.choice(self._sets)]
        if "exclude" in kind and self._known:
            body["exclude"] = self._random.choices(self._known, k=20)
        if "candidates" in kind and self._known:
            body["candidates"] = self._random.choices(self._known, k=200)
        return body

    def fault(self, body: dict[str, Any], answer: dict[str, Any]) -> str | None:
        """What is wrong with an answer; None if nothing is."""
        items = answer["items"]
        ids, scores = [item["item_id"] for item in items], [item["score"] for item in items]
        if len(ids) > body["k"] or len(set(ids)) != len(ids):
            return f"{len(ids)} items, {len(set(ids))} of them different, for k={body['k']}"
        if any(after > before for before, after in itertools.pairwise(scores)):
            return "the scores are not sorted"
        if shown := set(ids) & set(body.get("exclude", ())):
            return f"item {min(shown, key=str)} is excluded"
        if "candidates" in body and (shown := set(ids) - set(body["candidates"])):
            return f"item {min(shown, key=str)} is no candidate"
        if self._index is not None:
            sids = {item["item_id"]: item["sid"] for item in items}
            self._seen.append(Seen(answer["version"], tuple(body.get("sets", ())), sids))
        if len(self._known) < MAX_KNOWN_ITEMS:
            self._known += ids
        return None

    def faults_of_index(self) -> list[str]:
        """What is wrong with all answers so far, compared with the indexes of the versions that they name.

        It is called after a measurement, because reading an index would hold up the requests.
        """
        if self._index is None:
            return []
        read: dict[int, tuple[TrieIndex, Facts]] = {}
        faults = []
        for version in dict.fromkeys(seen.version for seen in self._seen):
            index = self._index(version)
            if id(index) not in read:
                read[id(index)] = index, Facts.of(index, self._rules)
            facts = read[id(index)][1]
            faults += [fault for seen in self._seen if seen.version == version and (fault := facts.fault(seen))]
        return faults


class Driver:
    """Sends requests to a service, and records the answers.

    Args:
        url: the address of the service.
        token: the bearer token, or None.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._headers = {} if token is None else {"authorization": f"Bearer {token}"}

    async def describe(self) -> dict[str, Any]:
        """The document of /v1/index.

        Raises:
            ArgumentError: the service cannot be reached, or is not ready.
        """
        try:
            async with (
                aiohttp.ClientSession(headers=self._headers) as session,
                session.get(f"{self._url}/v1/index") as response,
            ):
                content = await response.read()
                if response.status == 401:
                    raise ArgumentError(f"{self._url} needs a token: pass --token-file.")
                if response.status != 200:
                    raise ArgumentError(f"{self._url} answers with status {response.status}: {content[:300]!r}")
                return json.loads(content)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ArgumentError(f"{self._url} cannot be reached: {error}. Start it: hedgerow serve.") from None

    async def drive(self, requests: Requests, load: Load) -> Outcome:
        """Run one measurement."""
        outcome, started = Outcome(), time.perf_counter()
        begin = started + load.warm_seconds
        end = begin + load.seconds
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(headers=self._headers, connector=connector) as session:

            async def send() -> None:
                await self._send(session, requests, outcome, begin)

            await (self._closed(send, load, end) if load.rate is None else self._open(send, load, end))
        outcome.elapsed = time.perf_counter() - begin
        return outcome

    async def _closed(self, send: Callable[[], Any], load: Load, end: float) -> None:
        async def client() -> None:
            while time.perf_counter() < end:
                await send()

        await asyncio.gather(*(client() for _ in range(load.clients)))

    async def _open(self, send: Callable[[], Any], load: Load, end: float) -> None:
        """Poisson arrivals: the times between requests are independent of the answers."""
        assert load.rate is not None
        generator, running = random.Random(1), set()
        due = time.perf_counter()
        while due < end:
            due += generator.expovariate(load.rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            task = asyncio.ensure_future(send())
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)

    async def _send(self, session: aiohttp.ClientSession, requests: Requests, outcome: Outcome, begin: float) -> None:
        body, started = requests.next(), time.perf_counter()
        try:
            async with session.post(f"{self._url}/v1/retrieve", json=body) as response:
                content, status = await response.read(), response.status
        except (aiohttp.ClientError, OSError) as error:
            content, status = str(error).encode(), 0
        seconds = time.perf_counter() - started
        fault = None
        if status == 200:
            answer = json.loads(content)
            fault = requests.fault(body, answer)
            if started >= begin:
                outcome.seconds.append(seconds)
                outcome.items += len(answer["items"])
                outcome.batch_sizes.append(answer["timings"]["batch_size"])
        elif status not in (429, 503, 504):
            fault = f"status {status}: {content[:200]!r}"
        if fault is not None:
            outcome.faults.append(fault)
        if started >= begin:
            outcome.statuses[status] += 1


def serving(
    url: str,
    loads: Sequence[Load],
    *,
    token: str | None = None,
    prompts: Sequence[str] = PROMPTS,
    index: IndexOf | None = None,
    films: Callable[[], TrieIndex] | None = None,
    on_status: Callable[[str], object] = lambda _: None,
) -> Report:
    """Measure a service under loads, one after the other.

    Args:
        url: the address of the service.
        loads: the loads.
        token: the bearer token, or None.
        prompts: the prompts, in turn.
        index: as for `Requests`.
        films: builds the index of the films, for their service; None: it is not checked with it.
        on_status: called with what is being done.

    Raises:
        ArgumentError: the service cannot be reached, or an answer is wrong.
    """
    driver = Driver(url, token)
    described = asyncio.run(driver.describe())
    if index is None and films is not None and described["index"] == "films" and not described["live"]:
        of_films = films()
        index = lambda _: of_films  # noqa: E731
    widest = max(load.beam_width or 1 for load in loads)
    if widest > max(described["beam_widths"]):
        raise ArgumentError(f"the service searches with at most {max(described['beam_widths'])} beams; got {widest}.")
    rows = []
    for load in loads:
        on_status(f"{load.name} for {load.warm_seconds + load.seconds:g} s ...")
        requests = Requests(described, prompts, load, index)
        outcome = asyncio.run(driver.drive(requests, load))
        if faults := outcome.faults + requests.faults_of_index():
            shown = "; ".join(faults[:MAX_FAULTS])
            raise ArgumentError(f"{len(faults):,} answers under {load.name} are wrong: {shown}.")
        rows.append(_row(load, outcome, described))
    conditions = machine.conditions() | {
        "checked": "all answers" if index is not None else "all answers, without index"
    }
    return Report("serve", conditions, rows)


def _row(load: Load, outcome: Outcome, described: dict[str, Any]) -> Row:
    ms = np.asarray(outcome.seconds or [np.nan]) * 1e3
    refused = sum(count for status, count in outcome.statuses.items() if status != 200)
    return {
        "model": described["model"],
        "items": described["num_items"],
        "load": load.name,
        "mix": load.mix,
        "beam_width": load.beam_width or described["beam_widths"][0],
        "k": load.k,
        "requests_per_second": len(outcome.seconds) / outcome.elapsed,
        "p50_ms": float(np.percentile(ms, 50)),
        "p90_ms": float(np.percentile(ms, 90)),
        "p99_ms": float(np.percentile(ms, 99)),
        "requests": len(outcome.seconds),
        "refused": refused,
        "mean_batch": float(np.mean(outcome.batch_sizes or [0])),
        "mean_items": outcome.items / max(1, len(outcome.seconds)),
    }


def show(report: Report, console: Console) -> None:
    """Print a report as a table."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 1))
    for heading in ("load", "rules", "requests/s", "p50 ms", "p90 ms", "p99 ms", "refused", "batch"):
        table.add_column(heading, justify="left" if heading in ("load", "rules") else "right")
    for row in report.rows:
        times = (f"{row[name]:.1f}" for name in ("requests_per_second", "p50_ms", "p90_ms", "p99_ms"))
        table.add_row(row["load"], row["mix"], *times, f"{row['refused']:,}", f"{row['mean_batch']:.1f}")
    console.print(table)
    console.print(f"[dim]{report.conditions['checked']}; load of the machine {report.conditions['load']}[/]")
