"""Engine: answers batches of asks on the versions that are served."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from hedgerow.errors import HedgerowError
from hedgerow.hf import Explanation
from hedgerow.hf.prompts import Ids
from hedgerow.hf.tasks import AnswerBatch, Task, answers_of, batches_of
from hedgerow.hf.tracing import Trace, traced
from hedgerow.results import Results
from hedgerow.serve.asking import Answered, Ask, RefusedError, refusal_of
from hedgerow.serve.log import log
from hedgerow.serve.settings import Settings
from hedgerow.serve.snapshot import Snapshot

# An exception that is no refusal is an unexpected error.
Outcome = Answered | RefusedError | Exception
# Versions that are kept beside the current one and the canary, for requests that name them.
MAX_PREVIOUS = 1


class Observer(Protocol):
    """What is told of the work of an engine, for example metrics."""

    def searched(self, *, batch_size: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        """A batch has been searched."""

    def checked(self, *, seconds: float) -> None:
        """The requests of a batch have been checked."""

    def found(self, *, num_valid: int, beam_width: int) -> None:
        """A request has been answered."""

    def probed(self, *, masked: float) -> None:
        """The masked probability of a request has been measured."""


class _UnexpectedError(HedgerowError):
    """Any other error of a batch, so that each of its requests is answered alone."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _answering(answer: AnswerBatch) -> AnswerBatch:
    """Answers as `answer` does, with each unexpected error as an `_UnexpectedError`."""

    def answered(tasks: Sequence[Task], numbers: Sequence[int]) -> list[Results]:
        try:
            return answer(tasks, numbers)
        except HedgerowError:
            raise
        except Exception as error:
            raise _UnexpectedError(error) from error

    return answered


class Engine:
    """Answers asks on one of the versions that are served. It runs in one thread; others may change the versions.

    Args:
        snapshot: the current version.
        settings: the settings of the service.
        observer: what is told of the work.
    """

    def __init__(self, snapshot: Snapshot, settings: Settings, observer: Observer) -> None:
        self.settings, self._observer = settings, observer
        self._lock = threading.Lock()
        self._current, self._canary = snapshot, None
        self.canary_share = settings.canary_share
        self._previous: list[Snapshot] = []
        self._batches = 0

    @property
    def current(self) -> Snapshot:
        """The version that answers requests that name none."""
        return self._current

    @property
    def canary(self) -> Snapshot | None:
        """The version that answers a share of the requests that name none."""
        return self._canary

    @property
    def snapshots(self) -> list[Snapshot]:
        """The versions that are served, the current one first."""
        with self._lock:
            return [self._current, *([self._canary] if self._canary else []), *self._previous]

    @property
    def served(self) -> dict[int | None, Snapshot]:
        """The versions that requests can name, the current one first."""
        found: dict[int | None, Snapshot] = {}
        for snapshot in self.snapshots:
            found.setdefault(snapshot.number, snapshot)
        return found

    def replace(self, before: Snapshot, after: Snapshot) -> None:
        """Serve another snapshot of the same version from the next batch on."""
        with self._lock:
            self._current = after if self._current is before else self._current
            self._canary = after if self._canary is before else self._canary
            self._previous = [after if each is before else each for each in self._previous]

    def switch(self, snapshot: Snapshot) -> None:
        """Serve another version from the next batch on. The one before can still be named."""
        canary = self._canary
        canary = None if canary is None else canary.without_removed(snapshot)
        with self._lock:
            before = [] if snapshot.number == self._current.number else [self._current]
            kept = [each for each in before + self._previous if each.number != snapshot.number]
            self._previous, self._current, self._canary = kept[:MAX_PREVIOUS], snapshot, canary

    def set_canary(self, snapshot: Snapshot | None, share: float) -> None:
        """Let a version answer a share of the requests; None: the current version answers all."""
        canary = None if snapshot is None else snapshot.without_removed(self._current)
        with self._lock:
            self._canary, self.canary_share = canary, share

    def snapshot_for(self, ask: Ask) -> Snapshot:
        """The version that answers an ask.

        Raises:
            RefusedError: the version that it names is not served.
        """
        if ask.snapshot is not None:
            return ask.snapshot
        if ask.version is not None:
            served = self.served
            if ask.version not in served:
                known = ", ".join(str(number) for number in served if number is not None)
                there_are = f"the versions are {known}" if known else "the index is not live, so it has no versions"
                message = f"version {ask.version} is not served; {there_are}."
                raise RefusedError(404, "unknown_version", message, param="version")
            return served[ask.version]
        canary = self._canary
        if canary is not None and zlib.crc32(ask.key.encode()) < self.canary_share * 2**32:
            return canary
        return self._current

    def answer(self, asks: Sequence[Ask]) -> list[Outcome]:
        """Answer asks: one outcome for each. An ask that is invalid or fails does not change the others' answers."""
        outcomes: dict[int, Outcome] = {}
        tasks: dict[Snapshot, dict[int, Task]] = {}
        unknown: dict[int, tuple[int, list[Any]] | None] = {}
        seconds: list[float] = []
        for number, ask in enumerate(asks):
            started = time.perf_counter()
            try:
                snapshot = self.snapshot_for(ask)
                task = snapshot.retriever._searcher.task(snapshot.request(ask, self.settings))
                self._check_length(task.ids)
                unknown[number] = snapshot.unknown(ask)
                tasks.setdefault(snapshot, {})[number] = task
            except RefusedError as refusal:
                outcomes[number] = refusal
            except HedgerowError as error:
                outcomes[number] = refusal_of(error)
            except Exception as error:
                outcomes[number] = error
            seconds.append(time.perf_counter() - started)
        self._observer.checked(seconds=sum(seconds))
        for snapshot, of_snapshot in tasks.items():
            outcomes |= self._search(snapshot, of_snapshot)
        for number, outcome in outcomes.items():
            if isinstance(outcome, Answered):
                outcomes[number] = replace(
                    outcome, check_seconds=asks[number].where_seconds + seconds[number], unknown=unknown.get(number)
                )
        return [outcomes[number] for number in range(len(asks))]

    def _search(self, snapshot: Snapshot, tasks: Mapping[int, Task]) -> dict[int, Outcome]:
        searcher, numbers = snapshot.retriever._searcher, list(tasks)
        outcomes: dict[int, Outcome] = {}
        for positions in batches_of(searcher.search, list(tasks.values()), snapshot.retriever.max_tokens):
            batch, started = [numbers[position] for position in positions], time.perf_counter()
            answers = dict(answers_of(tasks, batch, _answering(searcher.results)))
            seconds = time.perf_counter() - started
            lengths = [len(tasks[number].ids) for number in batch]
            self._observer.searched(
                batch_size=len(batch), tokens=sum(lengths), padded_tokens=len(batch) * max(lengths), seconds=seconds
            )
            for number, answer in answers.items():
                if isinstance(answer, _UnexpectedError):
                    outcomes[number] = answer.error
                    continue
                if isinstance(answer, HedgerowError):
                    outcomes[number] = refusal_of(answer)
                    continue
                self._observer.found(num_valid=answer.num_valid or 0, beam_width=tasks[number].beam_width)
                outcomes[number] = Answered(
                    snapshot.number,
                    answer,
                    search_seconds=seconds,
                    batch_size=len(batch),
                    prompt_tokens=len(tasks[number].ids),
                )
            self._probe(snapshot, tasks[batch[0]])
        return outcomes

    def _probe(self, snapshot: Snapshot, task: Task) -> None:
        """Measure the masked probability of one request, now and then."""
        every = self.settings.probe_every
        self._batches += 1
        if not every or self._batches % every or task.rules.candidates is not None:
            return
        try:
            trace = traced(snapshot.retriever._searcher.search, task.ids, task.rules, task.beam_width)
        except Exception as error:
            # The request has its answer already.
            log("probe_failed", level="warning", error=f"{type(error).__name__}: {error}")
            return
        masked = float(np.mean(trace.masked))
        # Rules that allow nothing leave no beams, whose mean is NaN; one NaN would stay in the sum for ever.
        if np.isfinite(masked):
            self._observer.probed(masked=masked)

    def score(self, ask: Ask, item_ids: list[Any]) -> tuple[int | None, np.ndarray]:
        """The scores of items, and the version.

        Raises:
            RefusedError: as for `snapshot_for`, or the prompt or an id is invalid.
        """
        snapshot = self.snapshot_for(ask)
        try:
            return snapshot.number, snapshot.retriever.score(self._one_prompt(snapshot, ask), item_ids)
        except HedgerowError as error:
            raise refusal_of(error) from error

    def explain(self, ask: Ask, item: Any) -> tuple[int | None, Explanation]:
        """Why an item is or is not in the answer of an ask, and the version.

        Args:
            ask: the ask.
            item: the id of the item; or a dict of an attribute and the value that only this item has.

        Raises:
            RefusedError: as for `answer`, or no item or several items have the value.
        """
        snapshot = self.snapshot_for(ask)
        excluded = snapshot.excluded(ask)
        try:
            item_id, value = snapshot.named(item)
            explanation = snapshot.retriever.explain(
                self._one_prompt(snapshot, ask),
                item_id,
                beam_width=ask.beam_width,
                k=ask.k,
                constraints=snapshot.constraints(ask, self.settings),
                exclude=None if excluded is None else [excluded],
                candidates=None if ask.candidates is None else [ask.candidates],
                order_by=ask.order_by,
                caps=ask.caps,
            )
        except HedgerowError as error:
            raise refusal_of(error) from error
        return snapshot.number, replace(explanation, name=value)

    def trace(self, ask: Ask) -> tuple[int | None, Trace, Results]:
        """The search of an ask, level by level, its items, and the version.

        Raises:
            RefusedError: as for `answer`.
        """
        snapshot = self.snapshot_for(ask)
        try:
            searcher = snapshot.retriever._searcher
            task = searcher.task(snapshot.request(replace(ask, deadline=None), self.settings))
            self._check_length(task.ids)
            trace = traced(searcher.search, task.ids, task.rules, task.beam_width)
            return snapshot.number, trace, searcher.results([task], [0])[0]
        except HedgerowError as error:
            raise refusal_of(error) from error

    def unknown(self, ask: Ask) -> tuple[int, list[Any]] | None:
        """As `Snapshot.unknown`, on the version that answers an ask."""
        return self.snapshot_for(ask).unknown(ask)

    def token_text(self, level: int, code: int) -> str:
        """The text of the token of a code; of a model without a tokenizer, the code."""
        retriever = self._current.retriever
        token = int(retriever._searcher.search.model.tokens.token_ids[level][code])
        return (
            f"<{level}-{code}>"
            if retriever.tokenizer is None
            else str(retriever.tokenizer.convert_ids_to_tokens(token))
        )

    def _one_prompt(self, snapshot: Snapshot, ask: Ask) -> Ids:
        """The token ids of the prompt of an ask, within the limit."""
        ids = snapshot.retriever._searcher.encode_one([snapshot.prompt(ask)])
        self._check_length(ids)
        return ids

    def _check_length(self, ids: Ids) -> None:
        limit = self.settings.limits.prompt_tokens
        if len(ids) > limit:
            message = f"the prompt has {len(ids):,} tokens; this service takes {limit:,}."
            raise RefusedError(413, "prompt_too_long", message, param="prompt")
