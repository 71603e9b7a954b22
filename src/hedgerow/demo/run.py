"""run_demo(): each prompt asked without a catalog, and then under four rules over one index, in one batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import hedgerow as hr
from hedgerow.demo.films import load_catalog, load_retriever
from hedgerow.errors import ArgumentError

if TYPE_CHECKING:
    from hedgerow.hf import Retriever

PROMPTS = (
    "Recommend me a science fiction film from the 1980s",
    "I want to watch a French comedy",
    "A film directed by Akira Kurosawa",
)
ALL, NOT_SEEN = "all", "not seen"


@dataclass(frozen=True)
class Named:
    """A SID that a search gave: how many films have it, and the title of one of them."""

    sid: list[int]
    score: float
    films: int
    title: str | None


@dataclass(frozen=True)
class Answer:
    """What the searches gave for one prompt; films are rows of the catalog, with item_id, sid and score.

    Attributes:
        prompt: what was asked.
        free: what the model names without a catalog.
        films: the films of each rule: "all", "since ...", "French", "not seen" (the films of "all" are excluded).
        free_without_film: SIDs of the free search that name no film.
        constrained_without_film: the same of the four.
        beams: beams of a search.
        milliseconds: by search.
    """

    prompt: str
    free: list[Named]
    films: dict[str, list[dict[str, Any]]]
    free_without_film: int
    constrained_without_film: int
    beams: int
    milliseconds: dict[str, float]


@dataclass(frozen=True)
class Report:
    """All answers, and the sizes and times of what gave them."""

    answers: list[Answer]
    index: hr.TrieIndex
    sets: dict[str, hr.ConstraintSet | None]
    parameters: int
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, for JSON."""
        return {
            "answers": [asdict(answer) for answer in self.answers],
            "films": self.index.num_items,
            "sids": self.index.num_sids,
            "sets": {
                name: self.index.num_items if items is None else items.num_items for name, items in self.sets.items()
            },
            "index_bytes": self.index.nbytes,
            "parameters": self.parameters,
            "seconds": self.seconds,
        }


def run_demo(prompts: Sequence[str] | None = None, *, since: int, beam_width: int, k: int) -> Report:
    """Loads the films and the model, and answers the prompts.

    Raises:
        ArgumentError: a prompt is empty.
        MissingDependencyError: the packages of the demo extra are not installed.
    """
    prompts = PROMPTS if prompts is None else prompts
    if not all(prompt.strip() for prompt in prompts):
        raise ArgumentError("the prompt is empty; ask for something, for example: 'Recommend me a western'.")
    seconds: dict[str, float] = {}
    catalog = _timed(seconds, "read the catalog", load_catalog)
    index = _timed(seconds, "build the index", partial(hr.build_index, catalog))
    sets = _timed(seconds, "make the sets", lambda: _rules(index, since))
    retriever = _timed(seconds, "load the model", partial(load_retriever, index))
    answers = [_answer(retriever, sets, prompt, beam_width, k) for prompt in prompts]
    return Report(answers, index, sets, retriever.model.num_parameters(), seconds)


def _rules(index: hr.TrieIndex, since: int) -> dict[str, hr.ConstraintSet | None]:
    """Returns the set of each rule; NOT_SEEN has none, and is asked with the films of ALL excluded."""
    french = "list_contains(countries, 'France') OR list_contains(languages, 'French')"
    return {
        ALL: None,
        f"since {since}": index.where(f"year >= {since}", name=f"since {since}"),
        "French": index.where(french, name="French"),
        NOT_SEEN: None,
    }


def _answer(
    retriever: Retriever, sets: dict[str, hr.ConstraintSet | None], prompt: str, beam_width: int, k: int
) -> Answer:
    times: dict[str, float] = {}
    codes, scores = _timed(times, "free", lambda: retriever.free_search(prompt, beam_width=beam_width))
    (first,) = _timed(times, "constrained", lambda: retriever.retrieve(prompt, beam_width=beam_width, k=k))
    seen = [first.item_ids if name == NOT_SEEN else None for name in sets]

    def four_rules() -> list[hr.Results]:
        rules = {"constraints": list(sets.values()), "exclude": seen}
        return retriever.retrieve([prompt] * len(sets), beam_width=beam_width, k=None, **rules)

    found = _timed(times, "four rules", four_rules)
    named = _named(retriever.index, codes[0].numpy(), scores[0].tolist())
    return Answer(
        prompt=prompt,
        free=named[:k],
        films={name: results.head(k).to_pylist() for name, results in zip(sets, found, strict=True)},
        free_without_film=sum(name.films == 0 for name in named),
        constrained_without_film=sum(int((~retriever.index.contains(one.sids)).sum()) for one in found),
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
