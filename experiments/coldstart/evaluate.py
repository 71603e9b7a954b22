"""Evaluate a checkpoint and the baselines on the next item of users, and write the rank of each correct answer."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from transformers.utils.logging import disable_progress_bar

import hedgerow as hr
from coldstart.content import Content, encoded, text_embeddings
from coldstart.rivals import nearest_content, own_category, popular_category, scores, shared_prefixes
from coldstart.search import Scoring, Searcher
from coldstart.split import Questions, Split, split_of
from coldstart.tables import Shop, load
from coldstart.train import Run
from hedgerow import metrics

BEAM_WIDTHS = (20, 50, 100)
BEAMS = 50  # the beam width of comparisons at one width
SHOWN = 10  # the number of items that a user would see, for the coverage
SCORINGS = {
    "codes": Scoring("codes"),
    "allowed": Scoring("allowed"),
    "codes, prior": Scoring("codes", 1.0),
    "allowed, prior": Scoring("allowed", 1.0),
    "allowed, prior, content": Scoring("allowed", 1.0, content=8.0),
    "allowed, prior, item prompts": Scoring("allowed", 1.0, item_prompts=True),
}
BRIEF = tuple(SCORINGS)[:-1]
CHOSEN = "allowed, prior, content"  # the best scoring on the tuning splits


@dataclass(frozen=True)
class Outcome:
    """The results of one method for the Q questions of one test.

    Attributes:
        test: "cold", "served" (cold, with the whole history in the prompt) or "warm".
        method: name of the method in the tables.
        beam_width: M; 0 for methods without beams.
        ranks: float64 [Q], the rank of the correct answer; infinity if it was not found.
        valid: the share of the beams that match an item; 1 for constrained searches.
        coverage: the share of the candidates that are among the first ten results of at least one question.
    """

    test: str
    method: str
    beam_width: int
    ranks: np.ndarray
    valid: float
    coverage: float


class Evaluation:
    """A checkpoint and its split."""

    def __init__(self, folder: Path, data: Path, out: Path) -> None:
        facts = json.loads((folder / "run.json").read_text())
        self.run = Run(**{name: facts[name] for name in Run.__dataclass_fields__})
        self.shop: Shop = load(data)
        self.split: Split = split_of(self.shop, self.run.share, tuning=self.run.tuning)
        embeddings = text_embeddings(self.shop, out / f"{data.name}.npy")
        quantizer = hr.Quantizer.load(folder / "quantizer.safetensors")
        self.content: Content = encoded(embeddings, self.split, quantizer)
        self.searcher = Searcher(folder, self.content, self.split.known)
        self.candidates = np.flatnonzero(self.split.cold)
        self._results: dict[tuple, list[hr.Results]] = {}
        self.by_sid: dict[tuple[int, ...], list[int]] = {}
        for item in np.flatnonzero(self.split.known).tolist():
            self.by_sid.setdefault(tuple(self.content.sids[item].tolist()), []).append(item)

    def cold(self, *, brief: bool = False) -> Iterator[Outcome]:
        """The outcomes of all methods for users whose last item is cold; with `brief`, only of constrained searches."""
        test, fresh = self.split.test, self.searcher.set_of(self.candidates)
        for name in BRIEF if brief else SCORINGS:
            for width in BEAM_WIDTHS if name in ("allowed, prior", CHOSEN) and not brief else (BEAMS,):
                yield self._constrained("cold", f"cold set, {name}", test, width, SCORINGS[name], fresh)
        if brief:
            return
        for width in BEAM_WIDTHS:
            yield self._free("cold", test, width)
        yield self._constrained("cold", "whole catalog, codes", test, BEAMS, Scoring("codes"), None)
        for name, rank in {
            "shared prefixes": shared_prefixes(self.content, self.candidates),
            "content, nearest": nearest_content(self.content, self.candidates, np.max),
            "content, mean": nearest_content(self.content, self.candidates, np.mean),
            "popular category": popular_category(self.shop, self.split, self.candidates),
            "own category": own_category(self.shop, self.candidates),
        }.items():
            yield self._scored("cold", name, test, scores(test, rank), self.candidates)

    def served(self) -> Iterator[Outcome]:
        """The outcomes for the same users, when their prompts also contain the cold items of their histories."""
        test, fresh = self.split.served, self.searcher.set_of(self.candidates)
        for name in ("allowed", "allowed, prior", CHOSEN):
            yield self._constrained("served", f"cold set, {name}", test, BEAMS, SCORINGS[name], fresh, exclude=True)
        yield self._unseen("served", "content, nearest", test, self.candidates)

    def warm(self) -> Iterator[Outcome]:
        """The outcomes for warm users: candidates are all items of the catalog that are not in a user's history."""
        test, items = self.split.warm, np.flatnonzero(self.split.known)
        yield self._free("warm", test, BEAMS)
        for name in ("codes", "allowed"):
            yield self._constrained("warm", f"whole catalog, {name}", test, BEAMS, SCORINGS[name], None, exclude=True)
        taken = np.bincount(np.concatenate(self.split.training), minlength=len(self.shop.ids))[items]
        yield self._unseen("warm", "content, nearest", test, items)
        yield self._scored("warm", "most taken", test, np.tile(taken.astype(float), (len(test), 1)), items)

    def _unseen(self, test: str, name: str, questions: Questions, items: np.ndarray) -> Outcome:
        """The outcome of the nearest content among the items that are not in a user's history."""
        item_scores = scores(questions, nearest_content(self.content, items, np.max))
        for row, history in enumerate(questions.histories):
            item_scores[row, np.isin(items, history)] = -np.inf
        return self._scored(test, name, questions, item_scores, items)

    def _constrained(
        self,
        test: str,
        name: str,
        questions: Questions,
        width: int,
        scoring: Scoring,
        constraints: hr.ConstraintSet | None,
        *,
        exclude: bool = False,
    ) -> Outcome:
        options: dict[str, Any] = {"beam_width": width, "constraints": constraints}
        if scoring.item_prompts:
            ranked: Iterator[list[int]] = self.searcher.mixed(questions, scoring=scoring, **options)
        else:
            # The weight of the content only reorders results, so scorings that differ in it share one search.
            key = test, width, replace(scoring, content=0.0), constraints is None
            if key not in self._results:
                results = self.searcher.search(questions, scoring=key[2], exclude=exclude, **options)
                self._results[key] = list(
                    track(results, f"{test}: {name}, {width} beams", len(questions), transient=True)
                )
            ranked = map(partial(self._ordered, weight=scoring.content), self._results[key], questions.histories)
        answers = list(ranked)
        shown = {item for items in answers for item in items[:SHOWN]}
        count = self.searcher.index.num_items if constraints is None else constraints.num_items
        pairs = zip(answers, questions.targets.tolist(), strict=True)
        ranks = np.array([1 + items.index(target) if target in items else np.inf for items, target in pairs])
        return Outcome(test, name, width, ranks, 1.0, len(shown) / count)

    def _ordered(self, results: hr.Results, history: np.ndarray, *, weight: float) -> list[int]:
        """The items of a search, ordered by score plus `weight` times the cosine with the nearest item of a history."""
        if not weight:
            return results.item_ids
        vectors = self.content.embeddings
        nearest = (vectors[results.item_ids] @ vectors[history].T).max(axis=1)
        order = np.argsort(-(results.scores + weight * nearest), kind="stable")
        return [results.item_ids[position] for position in order]

    def _free(self, test: str, questions: Questions, width: int) -> Outcome:
        """The outcome of the unconstrained search. A beam that matches no item also counts for the rank."""
        sids = self.searcher.free(questions, beam_width=width)
        ranks, num_valid, shown = np.full(len(questions), np.inf), 0, set()
        for row, (beams, target) in enumerate(zip(sids.tolist(), questions.targets.tolist(), strict=True)):
            items = [self.by_sid.get(tuple(sid), [None])[0] for sid in beams]
            num_valid += sum(item is not None for item in items)
            shown.update(item for item in items[:SHOWN] if item is not None)
            positions = [position for position, sid in enumerate(beams) if target in self.by_sid.get(tuple(sid), [])]
            if positions:
                ranks[row] = 1 + positions[0]
        coverage = len(shown) / self.searcher.index.num_items
        return Outcome(test, "free", width, ranks, num_valid / sids[..., 0].size, coverage)

    def _scored(
        self, test: str, name: str, questions: Questions, item_scores: np.ndarray, items: np.ndarray
    ) -> Outcome:
        """The outcome of scores [Q, items]."""
        ranks = metrics.ranks_of_scores(item_scores, np.searchsorted(items, questions.targets))
        best = np.argpartition(-item_scores, min(SHOWN, len(items)) - 1, axis=1)[:, :SHOWN]
        return Outcome(test, name, 0, ranks, 1.0, len(np.unique(best)) / len(items))


def evaluate(folder: Path, data: Path, out: Path, *, brief: bool = False) -> None:
    """Evaluate a checkpoint, and write `ranks.npz` and `ranks.json` to its folder.

    Args:
        folder: the folder of the checkpoint.
        data: the folder of the two tables.
        out: the folder of the cached embeddings.
        brief: run only the constrained searches of the ablation.
    """
    evaluation = Evaluation(folder, data, out)
    outcomes = list(evaluation.cold(brief=brief))
    if evaluation.run.recipe == "full":
        outcomes += evaluation.served()
    if not brief:
        outcomes += evaluation.warm()
    arrays = {f"{outcome.test}|{outcome.method}|{outcome.beam_width}": outcome.ranks for outcome in outcomes}
    facts = {key: [outcome.valid, outcome.coverage] for key, outcome in zip(arrays, outcomes, strict=True)}
    np.savez_compressed(folder / "ranks.npz", **arrays)  # pyright: ignore[reportArgumentType]
    (folder / "ranks.json").write_text(json.dumps({"cold_items": len(evaluation.candidates), "facts": facts}) + "\n")
    for outcome in outcomes:
        summary = metrics.summary(outcome.ranks)
        text = ", ".join(f"{name} {100 * summary[name].mean:.2f}" for name in ("Recall@1", "Recall@10", "MRR"))
        print(f"{folder.name} {outcome.test:5} {outcome.method:24} {outcome.beam_width:3}  {text}", flush=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", type=Path, nargs="+", help="folders that train.py wrote")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--brief", action="store_true", help="run only the constrained searches of the ablation")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    disable_progress_bar()  # of transformers
    for folder in args.checkpoints:
        evaluate(folder, args.data, args.out, brief=args.brief)


if __name__ == "__main__":
    main()
