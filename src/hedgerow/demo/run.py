"""run_demo(): each prompt asked three times: without a catalog, within it, and within its recent part."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import hedgerow as hr
from hedgerow.demo.films import free_search, load_catalog, load_retriever
from hedgerow.errors import ArgumentError

if TYPE_CHECKING:
    from hedgerow.hf import Retriever

PROMPTS = (
    "Recommend me a science fiction film from the 1980s",
    "I want to watch a French comedy",
    "A film directed by Akira Kurosawa",
)


@dataclass(frozen=True)
class Named:
    """A SID that a search gave: how many films have it, and the title of one of them."""

    sid: list[int]
    score: float
    films: int
    title: str | None


@dataclass(frozen=True)
class Answer:
    """What the three searches gave for one prompt; the films are rows of the catalog, with item_id, sid and score."""

    prompt: str
    free: list[Named]
    films: list[dict[str, Any]]
    recent: list[dict[str, Any]]
    free_without_film: int
    constrained_without_film: int
    beams: int
    milliseconds: dict[str, float]


@dataclass(frozen=True)
class Report:
    """All answers, and the sizes and times of what gave them."""

    answers: list[Answer]
    since: int
    index: hr.TrieIndex
    recent_index: hr.TrieIndex
    parameters: int
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, for JSON."""
        return {
            "answers": [asdict(answer) for answer in self.answers],
            "since": self.since,
            "films": self.index.num_items,
            "sids": self.index.num_sids,
            "recent_films": self.recent_index.num_items,
            "index_bytes": self.index.nbytes,
            "parameters": self.parameters,
            "seconds": self.seconds,
        }


def run_demo(prompts: Sequence[str] | None = None, *, since: int, beam_width: int, k: int) -> Report:
    """Loads the films and the model, and answers the prompts.

    Raises:
        ArgumentError: a prompt is empty.
        BackendError: the packages of the demo extra are not installed.
    """
    import numpy as np

    prompts = PROMPTS if prompts is None else prompts
    if not all(prompt.strip() for prompt in prompts):
        raise ArgumentError("the prompt is empty; ask for something, for example: 'Recommend me a western'.")
    seconds: dict[str, float] = {}
    catalog = _timed(seconds, "read the catalog", load_catalog)
    index = _timed(seconds, "build the index", partial(hr.build_index, catalog))
    years = np.asarray(catalog.attributes["year"])
    recent = _timed(seconds, "build the recent index", lambda: hr.build_index(catalog.filter(years >= since)))
    retriever = _timed(seconds, "load the model", partial(load_retriever, index))
    newer = _with_index(retriever, recent)
    answers = [_answer(retriever, newer, prompt, beam_width, k) for prompt in prompts]
    return Report(answers, since, index, recent, retriever.model.model.num_parameters(), seconds)


def _with_index(retriever: Retriever, index: hr.TrieIndex) -> Retriever:
    from hedgerow.hf import Retriever

    return Retriever(retriever.model.model, index, retriever.tokens, tokenizer=retriever.tokenizer)


def _answer(retriever: Retriever, newer: Retriever, prompt: str, beam_width: int, k: int) -> Answer:
    times: dict[str, float] = {}
    codes, scores = _timed(times, "free", lambda: free_search(retriever, prompt, beam_width=beam_width))
    (found,) = _timed(times, "constrained", lambda: retriever.retrieve(prompt, beam_width=beam_width, k=None))
    (recent,) = _timed(times, "recent", lambda: newer.retrieve(prompt, beam_width=beam_width, k=None))
    named = _named(retriever.index, codes[0].numpy(), scores[0].tolist())
    return Answer(
        prompt=prompt,
        free=named[:k],
        films=found.head(k).to_pylist(),
        recent=recent.head(k).to_pylist(),
        free_without_film=sum(name.films == 0 for name in named),
        constrained_without_film=int((~retriever.index.contains(found.sids)).sum()),
        beams=len(named),
        milliseconds={what: 1000 * spent for what, spent in times.items()},
    )


def _named(index: hr.TrieIndex, sids: Any, scores: list[float]) -> list[Named]:
    """Returns what each SID names: the whole index is asked, so that a collision counts all its films."""
    titles = index.attributes["title"]
    named = []
    for sid, score, leaf in zip(sids.tolist(), scores, index.find(sids).tolist(), strict=True):
        rows = range(0) if leaf < 0 else range(*map(int, index.rows_of(leaf)))
        named.append(Named(sid, score, len(rows), titles[rows[0]].as_py() if rows else None))
    return named


def _timed(times: dict[str, float], what: str, work: Callable[[], Any]) -> Any:
    started = time.perf_counter()
    result = work()
    times[what] = time.perf_counter() - started
    return result
