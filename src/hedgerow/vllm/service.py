"""The service in the API process of vLLM: it checks requests, lets the engine search, and makes the answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, cast

from hedgerow.errors import HedgerowError
from hedgerow.hf.tasks import Task
from hedgerow.hf.warming import warm_up_index
from hedgerow.serve.asking import Answered, Ask, RefusedError, refusal_of
from hedgerow.serve.batcher import Queue
from hedgerow.serve.engine import Engine, Outcome
from hedgerow.serve.metrics import Metrics
from hedgerow.serve.service import Service, Source
from hedgerow.serve.settings import Settings
from hedgerow.serve.snapshot import Snapshot
from hedgerow.vllm.remote import RemoteSearcher
from hedgerow.vllm.wire import EngineError, unpack_answer

# Threads that check requests and make results.
THREADS = 2


class VllmQueue:
    """Sends each ask to vLLM, whose scheduler has the queue and makes the batches.

    Args:
        engine: the versions that are served.
        settings: the settings of the service.
        metrics: are told of the requests.
        client: vLLM's `EngineClient`.
        loop: the event loop of the client.
    """

    def __init__(
        self, engine: Engine, settings: Settings, metrics: Metrics, client: Any, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._engine, self._settings, self._metrics = engine, settings, metrics
        self._client, self._loop = client, loop
        self._threads = ThreadPoolExecutor(THREADS, "hedgerow-check")
        self._running = 0

    @property
    def is_idle(self) -> bool:
        """Whether no request is inside vLLM."""
        return not self._running

    def submit(self, ask: Ask) -> Future[Outcome]:
        """Send an ask: see `Batcher.submit`. It is called in the event loop.

        Raises:
            RefusedError: too many requests are inside vLLM already.
        """
        (future,) = self.submit_all([ask])
        return future

    def submit_all(self, asks: list[Ask]) -> list[Future[Outcome]]:
        """Send asks: see `Batcher.submit_all`.

        Raises:
            RefusedError: as for `submit`.
        """
        if self._running + len(asks) > self._settings.queue:
            self._metrics.shed("queue_full")
            message = f"{self._running} requests are inside vLLM already, of at most {self._settings.queue}."
            raise RefusedError(429, "queue_full", message, retry_after=1.0)
        self._running += len(asks)
        self._metrics.queued(length=self._running)
        return [asyncio.run_coroutine_threadsafe(self._outcome(ask), self._loop) for ask in asks]

    def run(self, work: Callable[[Engine], Any]) -> Future[Any]:  # noqa: ARG002
        """Other work on the engine needs the model in this process."""
        raise RefusedError(404, "unknown_route", "this service inside vLLM answers /v1/retrieve only.")

    def drop_late(self) -> None:
        """Nothing: each request has its own timer."""

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False)

    async def _outcome(self, ask: Ask) -> Outcome:
        started = time.monotonic()
        deadline = started + self._settings.deadline_ms / 1e3 if ask.deadline is None else ask.deadline
        try:
            async with asyncio.timeout(max(0.0, deadline - started)):
                return await self._answer(ask)
        except TimeoutError:
            self._metrics.shed("deadline")
            return RefusedError(504, "deadline", "the request was not answered before its deadline.")
        except RefusedError as refusal:
            return refusal
        except EngineError as error:
            return RefusedError(500, "engine", str(error))
        except HedgerowError as error:
            return refusal_of(error)
        finally:
            self._running -= 1
            self._metrics.queued(length=self._running)

    async def _answer(self, ask: Ask) -> Answered:
        from vllm import PoolingParams  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

        loop, started = asyncio.get_running_loop(), time.perf_counter()
        snapshot, task, packed = await loop.run_in_executor(self._threads, self._checked, ask)
        checked = time.perf_counter()
        params = PoolingParams(task="embed", extra_kwargs=packed)
        # Two requests of clients may have one id; inside vLLM ids are distinct.
        number = f"hedgerow-{id(task):x}-{time.monotonic_ns():x}"
        answer: Any = None
        async for output in self._client.encode({"type": "token", "prompt_token_ids": task.ids}, params, number):
            answer = output.outputs.data
        found = unpack_answer(answer)
        searcher = cast("RemoteSearcher", snapshot.retriever._searcher)
        results = await loop.run_in_executor(self._threads, searcher.read, task, found)
        unknown = await loop.run_in_executor(self._threads, snapshot.unknown, ask)
        queue_seconds = max(0.0, time.perf_counter() - checked - found.seconds)
        self._metrics.checked(seconds=checked - started)
        self._metrics.found(num_valid=results.num_valid or 0, beam_width=task.beam_width)
        return Answered(
            snapshot.number,
            results,
            queue_seconds=queue_seconds,
            check_seconds=ask.where_seconds + checked - started,
            search_seconds=found.seconds,
            batch_size=found.batch_size,
            prompt_tokens=len(task.ids),
            unknown=unknown,
        )

    def _checked(self, ask: Ask) -> tuple[Snapshot, Task, dict[str, Any]]:
        """The version that answers an ask, its task, and what the engine gets.

        Raises:
            HedgerowError: the request is invalid.
            RefusedError: it names a set or a version that does not exist, or its prompt is too long.
        """
        snapshot = self._engine.snapshot_for(ask)
        searcher = cast("RemoteSearcher", snapshot.retriever._searcher)
        task = searcher.task(replace(snapshot.request(ask, self._settings), deadline=None))
        limit = self._settings.limits.prompt_tokens
        if len(task.ids) > limit:
            message = f"the prompt has {len(task.ids):,} tokens; this service takes {limit:,}."
            raise RefusedError(413, "prompt_too_long", message, param="prompt")
        return snapshot, task, searcher.pack(task)


class VllmService(Service):
    """The service of `hedgerow serve` with vLLM in place of its own queue and model.

    Args:
        source: what is served. Its retriever is a `RemoteRetriever`.
        settings: the settings.
        client: vLLM's `EngineClient`.
        loop: the event loop of the client.
    """

    def __init__(self, source: Source, settings: Settings, client: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(source, settings)
        self._client, self._loop = client, loop

    def _warm_up(self, snapshot: Snapshot) -> None:
        warm_up_index(snapshot.retriever._searcher, self.settings.beam_widths[0])

    def _queue_before(self, engine: Engine) -> Queue:
        return VllmQueue(engine, self.settings, self.metrics, self._client, self._loop)
