"""run_demo(): for each prompt, an unconstrained search, and a search under four rules over one index, in one batch."""

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
class FreeBeam:
    """A SID of the unconstrained search.

    Attributes:
        sid: its codes.
        score: the sum of the log-probabilities of its codes.
        films: the number of films that have it.
        title: the title of the first of them, or None.
    """

    sid: list[int]
    score: float
    films: int
    title: str | None


@dataclass(frozen=True)
class Answer:
    """The results of the searches for one prompt. Films are rows of the catalog with item_id, sid and score.

    Attributes:
        prompt: the prompt.
        free: the best SIDs of the unconstrained search.
        films: the films for each rule: "all", "since ...", "French", "not seen" (the films of "all" are excluded).
        free_without_film: the number of SIDs of the unconstrained search that match no film.
        constrained_without_film: the same for the four constrained searches.
        beams: the beam width.
        milliseconds: the time of each search.
    """

    prompt: str
    free: list[FreeBeam]
    films: dict[str, list[dict[str, Any]]]
    free_without_film: int
    constrained_without_film: int
    beams: int
    milliseconds: dict[str, float]


@dataclass(frozen=True)
class Report:
    """All answers, sizes and times.

    Attributes:
        answers: one per prompt.
        index: the index of all films.
        sets: the constraint set of each rule; None if the rule has none.
        parameters: the number of parameters of the model.
        seconds: the time of each part of the start.
    """

    answers: list[Answer]
    index: hr.TrieIndex
    sets: dict[str, hr.ConstraintSet | None]
    parameters: int
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, for JSON."""
        return {
            "answers": [asdict(answer) for answer in self.answers],
            "films": self.index.num_items,
            "sids": self.index.num_sids,
            "sets": {
                rule: self.index.num_items if items is None else items.num_items for rule, items in self.sets.items()
            },
            "index_bytes": self.index.nbytes,
            "parameters": self.parameters,
            "seconds": self.seconds,
        }


def run_demo(prompts: Sequence[str] | None = None, *, since: int, beam_width: int, k: int) -> Report:
    """Load the films and the model, and answer the prompts.

    Args:
        prompts: the prompts. Default: three prompts.
        since: the year of the rule "since ...".
        beam_width: M.
        k: the number of films per rule.

    Raises:
        ArgumentError: a prompt is empty.
        MissingDependencyError: the packages of the extra `demo` are not installed.
    """
    prompts = PROMPTS if prompts is None else prompts
    if not all(prompt.strip() for prompt in prompts):
        raise ArgumentError("the prompt is empty; pass a text, for example 'Recommend me a western'.")
    seconds: dict[str, float] = {}
    catalog = _timed(seconds, "read the catalog", load_catalog)
    index = _timed(seconds, "build the index", partial(hr.build_index, catalog))
    sets = _timed(seconds, "create the sets", lambda: _rules(index, since))
    retriever = _timed(seconds, "load the model", partial(load_retriever, index))
    # The first search of each kind imports modules and copies the sets to the device, so it is not timed.
    _answer(retriever, sets, prompts[0], beam_width, k)
    answers = [_answer(retriever, sets, prompt, beam_width, k) for prompt in prompts]
    return Report(answers, index, sets, retriever.model.num_parameters(), seconds)


def _rules(index: hr.TrieIndex, since: int) -> dict[str, hr.ConstraintSet | None]:
    """The set of each rule. NOT_SEEN has no set; its search excludes the films of ALL."""
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
    """Run the three searches of a prompt: unconstrained, constrained, and under the four rules."""
    times: dict[str, float] = {}
    sids, scores = _timed(times, "free", lambda: retriever.free_search(prompt, beam_width=beam_width))
    (best,) = _timed(times, "constrained", lambda: retriever.retrieve(prompt, beam_width=beam_width, k=k))
    rules = {
        "constraints": list(sets.values()),
        "exclude": [best.item_ids if rule == NOT_SEEN else None for rule in sets],
    }
    batch = partial(retriever.retrieve, [prompt] * len(sets), beam_width=beam_width, k=None, **rules)
    by_rule = _timed(times, "four rules", batch)
    free = _free_beams(retriever.index, sids[0].numpy(), scores[0].tolist())
    return Answer(
        prompt=prompt,
        free=free[:k],
        films={rule: results.head(k).to_pylist() for rule, results in zip(sets, by_rule, strict=True)},
        free_without_film=sum(beam.films == 0 for beam in free),
        constrained_without_film=sum(int((~retriever.index.contains(results.sids)).sum()) for results in by_rule),
        beams=len(free),
        milliseconds={search: 1000 * spent for search, spent in times.items()},
    )


def _free_beams(index: hr.TrieIndex, sids: Any, scores: list[float]) -> list[FreeBeam]:
    """The films of each SID in the whole index, so that all films that share a SID count."""
    titles = index.attributes["title"]
    beams = []
    for sid, score, leaf in zip(sids.tolist(), scores, index.find(sids).tolist(), strict=True):
        rows = range(0) if leaf < 0 else range(*map(int, index.rows_of(leaf)))
        beams.append(FreeBeam(sid, score, len(rows), titles[rows[0]].as_py() if rows else None))
    return beams


def _timed(times: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    """Call `work` and store its time in seconds."""
    started = time.perf_counter()
    result = work()
    times[name] = time.perf_counter() - started
    return result
