"""run_demo(): each prompt asked three times: without a catalog, within it, and within its recent part."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import hedgerow as hr
from hedgerow.demo.films import FilmModel, free_search, load_catalog
from hedgerow.errors import ArgumentError

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
    model = _timed(seconds, "load the model", FilmModel)
    catalog = _timed(seconds, "read the catalog", load_catalog)
    index = _timed(seconds, "build the index", partial(hr.build_index, catalog))
    years = np.asarray(catalog.attributes["year"])
    recent = _timed(seconds, "build the recent index", lambda: hr.build_index(catalog.filter(years >= since)))
    # The first call of a model sets up more than it computes.
    model.logits(_batch(model, prompts[0]), hr.start(index.to("torch"), 1).codes)
    answers = [_answer(model, index, recent, prompt, beam_width, k) for prompt in prompts]
    return Report(answers, since, index, recent, model.num_parameters, seconds)


def _answer(
    model: FilmModel, index: hr.TrieIndex, recent: hr.TrieIndex, prompt: str, beam_width: int, k: int
) -> Answer:
    batch = _batch(model, prompt)
    times: dict[str, float] = {}
    logits_of = partial(model.logits, batch)
    codes, scores = _timed(times, "free", lambda: free_search(logits_of, batch_size=1, beam_width=beam_width))
    found = _timed(times, "constrained", lambda: _search(model, index, batch, beam_width))
    newer = _timed(times, "recent", lambda: _search(model, recent, batch, beam_width))
    named = _named(index, codes[0].numpy(), scores[0].tolist())
    return Answer(
        prompt=prompt,
        free=named[:k],
        films=found.to_pylist()[:k],
        recent=newer.to_pylist()[:k],
        free_without_film=sum(name.films == 0 for name in named),
        constrained_without_film=int((~index.contains(found.sids)).sum()),
        beams=len(named),
        milliseconds={what: 1000 * spent for what, spent in times.items()},
    )


def _search(model: FilmModel, index: hr.TrieIndex, batch: Any, beam_width: int) -> hr.Results:
    beams = hr.beam_search(index.to("torch"), model.logits_fn(batch), batch_size=1, beam_width=beam_width)
    return index.items(beams)[0]


def _named(index: hr.TrieIndex, sids: Any, scores: list[float]) -> list[Named]:
    """Returns what each SID names: the whole index is asked, so that a collision counts all its films."""
    titles = index.attributes["title"]
    named = []
    for sid, score, leaf in zip(sids.tolist(), scores, index.find(sids).tolist(), strict=True):
        rows = range(0) if leaf < 0 else range(*map(int, index.rows_of(leaf)))
        named.append(Named(sid, score, len(rows), titles[rows[0]].as_py() if rows else None))
    return named


def _batch(model: FilmModel, prompt: str) -> Any:
    import torch

    return torch.tensor([model.encode(prompt)])


def _timed(times: dict[str, float], what: str, work: Callable[[], Any]) -> Any:
    started = time.perf_counter()
    result = work()
    times[what] = time.perf_counter() - started
    return result
