"""Metrics of a service, for Prometheus: what the operator sees."""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from hedgerow.serve.snapshot import Snapshot

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
RATIOS = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The metrics of one service, in a registry of their own. It observes the engine, the batcher and the follower."""

    def __init__(self) -> None:
        # The times at which metrics were created, one more series for each.
        disable_created_metrics()
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "hedgerow_requests", "Requests, by outcome and version.", ["outcome", "version"], registry=registry
        )
        self._phases = Histogram(
            "hedgerow_phase_seconds",
            "Seconds of each phase: queue and total of each request, check and search of each batch.",
            ["phase"],
            buckets=SECONDS,
            registry=registry,
        )
        self._batch_size = Histogram("hedgerow_batch_size", "Requests per batch.", buckets=SIZES, registry=registry)
        self._queue = Gauge("hedgerow_queue_length", "Requests that wait.", registry=registry)
        self._shed = Counter(
            "hedgerow_shed", "Requests that were refused or dropped before a search.", ["reason"], registry=registry
        )
        self._num_valid = Histogram(
            "hedgerow_num_valid_ratio", "SIDs found, as a share of the beam width.", buckets=RATIOS, registry=registry
        )
        self._masked = Histogram(
            "hedgerow_masked_probability",
            "Probability that the catalog and the rules remove, mean over levels, of some requests.",
            buckets=RATIOS,
            registry=registry,
        )
        self._padding = Histogram(
            "hedgerow_padding_ratio",
            "Padding, as a share of the prompt tokens of a batch.",
            buckets=RATIOS,
            registry=registry,
        )
        self._version = Gauge("hedgerow_index_version", "Version of the index; 0 if it is not live.", registry=registry)
        self._items = Gauge("hedgerow_index_items", "Items of the index, without removed ones.", registry=registry)
        self._age = Gauge("hedgerow_index_age_seconds", "Seconds since the version was created.", registry=registry)
        self._switches = Histogram(
            "hedgerow_version_switch_seconds",
            "Seconds from finding a new version to serving it.",
            buckets=SECONDS,
            registry=registry,
        )
        self._refused = Counter(
            "hedgerow_version_refused", "Versions that could not be loaded or warmed up.", registry=registry
        )
        self._captures = Counter("hedgerow_graph_captures", "CUDA graphs captured so far.", registry=registry)
        self._captured = 0
        self._seen: set[tuple[str, str]] = set()
        for phase in ("queue", "check", "search", "total"):
            self._phases.labels(phase)
        for reason in ("queue_full", "deadline", "draining", "expressions"):
            self._shed.labels(reason)

    def answered(self, *, outcome: str, version: int | None, seconds: float | None) -> None:
        """A request has been answered or refused; `seconds` if it asked for items."""
        labels = outcome, "" if version is None else str(version)
        self._seen.add(labels)
        self._requests.labels(*labels).inc()
        if seconds is not None:
            self._phases.labels("total").observe(seconds)

    def queued(self, *, length: int) -> None:
        """The length of the queue has changed."""
        self._queue.set(length)

    def waited(self, *, seconds: float) -> None:
        """A request has left the queue for a batch."""
        self._phases.labels("queue").observe(seconds)

    def shed(self, reason: str) -> None:
        """A request was refused, or dropped from the queue."""
        self._shed.labels(reason).inc()

    def checked(self, *, seconds: float) -> None:
        """The requests of a batch have been checked."""
        self._phases.labels("check").observe(seconds)

    def searched(self, *, batch_size: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        """A batch has been searched."""
        self._batch_size.observe(batch_size)
        self._phases.labels("search").observe(seconds)
        self._padding.observe(1 - tokens / padded_tokens)

    def found(self, *, num_valid: int, beam_width: int) -> None:
        """A request has been answered."""
        self._num_valid.observe(num_valid / beam_width)

    def probed(self, *, masked: float) -> None:
        """The masked probability of a request has been measured."""
        self._masked.observe(masked)

    def switched(self, *, seconds: float, served: Collection[int | None]) -> None:
        """A version is served from now on. Series of versions that are not served any more are dropped."""
        self._switches.observe(seconds)
        kept = {"", *map(str, served)}
        for labels in [labels for labels in self._seen if labels[1] not in kept]:
            self._seen.discard(labels)
            self._requests.remove(*labels)

    def refused(self) -> None:
        """A version could not be loaded or warmed up."""
        self._refused.inc()

    def page(self, current: Snapshot | None) -> bytes:
        """All metrics as text, with those of the current version."""
        if current is not None:
            self._version.set(current.number or 0)
            self._items.set(current.num_items)
            self._age.set(age_of(current) or 0.0)
            graphs = current.retriever._searcher.graphs
            captures = 0 if graphs is None else graphs.captures
            self._captures.inc(captures - self._captured)
            self._captured = captures
        return generate_latest(self.registry)


def age_of(snapshot: Snapshot) -> float | None:
    """The seconds since a version was created; None if the index is not live."""
    if snapshot.version is None:
        return None
    created = datetime.fromisoformat(snapshot.version.info.created)
    created = created if created.tzinfo is not None else created.replace(tzinfo=UTC)
    return max(0.0, time.time() - created.timestamp())
