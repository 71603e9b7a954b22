"""Settings: how a service batches requests, and what requests may ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hedgerow._arguments import whole_number
from hedgerow.errors import ArgumentError

# Versions of a live index may grow by this factor before anything is compiled again.
HEADROOM = 1.5


@dataclass(frozen=True)
class Limits:
    """The largest sizes of a request. Larger ones are refused before they cost anything.

    Attributes:
        body_bytes: bytes of the body.
        requests: requests in one body.
        k: items.
        prompt_characters: characters of a prompt's text.
        prompt_tokens: tokens of a prompt.
        ids: excluded ids or candidates.
        scored: ids to score.
        depth: lists and objects inside each other in a body.
        body_seconds: seconds until a body has arrived.
        sets: names of sets.
        where_characters: characters of an SQL expression.
        where_items: items of an index for which SQL expressions are evaluated.
        where_seconds: seconds that an SQL expression may take.
    """

    body_bytes: int = 2**20
    requests: int = 64
    k: int = 1_000
    prompt_characters: int = 100_000
    prompt_tokens: int = 512
    ids: int = 10_000
    scored: int = 1_000
    depth: int = 32
    body_seconds: float = 10.0
    sets: int = 16
    where_characters: int = 2_000
    where_items: int = 20_000_000
    where_seconds: float = 1.0


@dataclass(frozen=True)
class Settings:
    """The settings of a service.

    Attributes:
        beam_widths: the beam widths that are warmed up, ascending. The last is the maximum.
        default_beam_width: the beam width of requests that set none. None: the smallest.
        max_batch: the largest number of requests in a batch.
        max_wait_ms: milliseconds that a batch waits for more requests while nothing else runs.
        queue: requests that wait at most; further ones are refused.
        deadline_ms: milliseconds that a request waits at most before its search begins, unless it sets its own.
        allow_where: whether requests may have SQL expressions.
        canary_share: the share of the requests that the canary version answers.
        rules_seconds: seconds after which rules that depend on the time are evaluated again.
        drain_seconds: seconds after SIGTERM in which the service still answers, but says that it is not ready.
        follow_seconds: seconds between two looks at a live index; None: it is not followed.
        probe_every: one of so many batches measures the masked probability of one request; 0: none does.
        limits: the largest sizes of a request.
    """

    beam_widths: tuple[int, ...] = (50,)
    default_beam_width: int | None = None
    max_batch: int = 32
    max_wait_ms: float = 2.0
    queue: int = 256
    deadline_ms: float = 1_000.0
    allow_where: bool = False
    canary_share: float = 0.0
    rules_seconds: float = 60.0
    drain_seconds: float = 0.0
    follow_seconds: float | None = None
    probe_every: int = 100
    limits: Limits = field(default_factory=Limits)

    @classmethod
    def of(cls, beam_widths: Sequence[int], *, prompt_tokens: int, **others: Any) -> Settings:
        """The settings of the options of `hedgerow serve` and `hedgerow.ray.application`.

        Args:
            beam_widths: the default beam width, and others in any order.
            prompt_tokens: the largest number of tokens of a prompt.
            **others: fields of `Settings`.

        Raises:
            ArgumentError: there is no beam width, or one is not a positive integer.
        """
        widths = [whole_number(width, "beam_widths") for width in beam_widths]
        if not widths:
            raise ArgumentError("beam_widths must name at least one beam width; got none.")
        limits = replace(Limits(), prompt_tokens=prompt_tokens)
        return cls(tuple(sorted(set(widths))), widths[0], limits=limits, **others)
