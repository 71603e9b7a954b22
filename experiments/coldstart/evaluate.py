"""Ask a checkpoint, and its rivals, for the next item of users they never saw; write the rank of each right answer."""

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
BEAMS = 50  # where one width is shown
MOST_USED = 10  # items a user would be shown
SCORINGS = {
    "codes": Scoring("codes"),
    "allowed": Scoring("allowed"),
    "codes, prior": Scoring("codes", 1.0),
    "allowed, prior": Scoring("allowed", 1.0),
    "allowed, prior, content": Scoring("allowed", 1.0, content=8.0),
    "allowed, prior, item prompts": Scoring("allowed", 1.0, item_prompts=True),
}
BRIEF = tuple(SCORINGS)[:-1]
CHOSEN = "allowed, prior, content"  # on the tuning splits


@dataclass(frozen=True)
class Asked:
    """What one method answered to the Q questions of one test.

    Attributes:
        test: "cold", "served" (cold, after all that the user took) or "warm".
        method: its name in the tables.
        beam_width: M, or 0 where there are no beams.
        ranks: float64 [Q].
        valid: the share of the beams that name an item, or 1 by construction.
        coverage: the share of the candidates that are among somebody's first ten.
    """

    test: str
    method: str
    beam_width: int
    ranks: np.ndarray
    valid: float
    coverage: float


class Evaluation:
    """One checkpoint and its split."""

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
        self._found: dict[tuple, list[hr.Results]] = {}
        self.by_sid: dict[tuple[int, ...], list[int]] = {}
        for item in np.flatnonzero(self.split.known).tolist():
            self.by_sid.setdefault(tuple(self.content.sids[item].tolist()), []).append(item)

    def cold(self, *, brief: bool = False) -> Iterator[Asked]:
        """Yields the answers of every method to the users whose last item is cold; of the searches alone if brief."""
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

    def served(self) -> Iterator[Asked]:
        """Yields the answers to the same users when the cold items that they took before are in the prompt as well."""
        test, fresh = self.split.served, self.searcher.set_of(self.candidates)
        for name in ("allowed", "allowed, prior", CHOSEN):
            yield self._constrained("served", f"cold set, {name}", test, BEAMS, SCORINGS[name], fresh, exclude=True)
        yield self._unseen("served", "content, nearest", test, self.candidates)

    def warm(self) -> Iterator[Asked]:
        """Yields the answers to warm users, over the whole catalog, less what each has taken."""
        test, items = self.split.warm, np.flatnonzero(self.split.known)
        yield self._free("warm", test, BEAMS)
        for name in ("codes", "allowed"):
            yield self._constrained("warm", f"whole catalog, {name}", test, BEAMS, SCORINGS[name], None, exclude=True)
        taken = np.bincount(np.concatenate(self.split.training), minlength=len(self.shop.ids))[items]
        yield self._unseen("warm", "content, nearest", test, items)
        yield self._scored("warm", "most taken", test, np.tile(taken.astype(float), (len(test), 1)), items)

    def _unseen(self, test: str, name: str, questions: Questions, items: np.ndarray) -> Asked:
        """The nearest content among the items that a user has not taken."""
        found = scores(questions, nearest_content(self.content, items, np.max))
        for row, history in enumerate(questions.histories):
            found[row, np.isin(items, history)] = -np.inf
        return self._scored(test, name, questions, found, items)

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
    ) -> Asked:
        options: dict[str, Any] = {"beam_width": width, "constraints": constraints}
        if scoring.item_prompts:
            found: Iterator[list[int]] = self.searcher.mixed(questions, scoring=scoring, **options)
        else:
            # What orders by content orders what was found without.
            key = test, width, replace(scoring, content=0.0), constraints is None
            if key not in self._found:
                results = self.searcher.search(questions, scoring=key[2], exclude=exclude, **options)
                self._found[key] = list(
                    track(results, f"{test}: {name}, {width} beams", len(questions), transient=True)
                )
            found = map(partial(self._ordered, weight=scoring.content), self._found[key], questions.histories)
        answers = list(found)
        shown = {item for items in answers for item in items[:MOST_USED]}
        count = self.searcher.index.num_items if constraints is None else constraints.num_items
        pairs = zip(answers, questions.targets.tolist(), strict=True)
        ranks = np.array([1 + items.index(target) if target in items else np.inf for items, target in pairs])
        return Asked(test, name, width, ranks, 1.0, len(shown) / count)

    def _ordered(self, results: hr.Results, history: np.ndarray, *, weight: float) -> list[int]:
        if not weight:
            return results.item_ids
        vectors = self.content.embeddings
        nearest = (vectors[results.item_ids] @ vectors[history].T).max(axis=1)
        order = np.argsort(-(results.scores + weight * nearest), kind="stable")
        return [results.item_ids[place] for place in order]

    def _free(self, test: str, questions: Questions, width: int) -> Asked:
        """A beam that names no item takes a place all the same: it would have been shown, and cannot be."""
        sids = self.searcher.free(questions, beam_width=width)
        ranks, named, shown = np.full(len(questions), np.inf), 0, set()
        for row, (beams, target) in enumerate(zip(sids.tolist(), questions.targets.tolist(), strict=True)):
            items = [self.by_sid.get(tuple(sid), [None])[0] for sid in beams]
            named += sum(item is not None for item in items)
            shown.update(item for item in items[:MOST_USED] if item is not None)
            places = [place for place, sid in enumerate(beams) if target in self.by_sid.get(tuple(sid), [])]
            if places:
                ranks[row] = 1 + places[0]
        return Asked(test, "free", width, ranks, named / sids[..., 0].size, len(shown) / self.searcher.index.num_items)

    def _scored(self, test: str, name: str, questions: Questions, found: np.ndarray, items: np.ndarray) -> Asked:
        ranks = metrics.ranks_of_scores(found, np.searchsorted(items, questions.targets))
        best = np.argpartition(-found, min(MOST_USED, len(items)) - 1, axis=1)[:, :MOST_USED]
        return Asked(test, name, 0, ranks, 1.0, len(np.unique(best)) / len(items))


def evaluate(folder: Path, data: Path, out: Path, *, brief: bool = False) -> None:
    """Writes `ranks.npz` beside the checkpoint."""
    evaluation = Evaluation(folder, data, out)
    answers = list(evaluation.cold(brief=brief))
    if evaluation.run.recipe == "full":
        answers += evaluation.served()
    if not brief:
        answers += evaluation.warm()
    arrays = {f"{answer.test}|{answer.method}|{answer.beam_width}": answer.ranks for answer in answers}
    facts = {key: [answer.valid, answer.coverage] for key, answer in zip(arrays, answers, strict=True)}
    np.savez_compressed(folder / "ranks.npz", **arrays)  # pyright: ignore[reportArgumentType]
    (folder / "ranks.json").write_text(json.dumps({"cold_items": len(evaluation.candidates), "facts": facts}) + "\n")
    for answer in answers:
        found = metrics.summary(answer.ranks)
        shown = ", ".join(f"{name} {100 * found[name].mean:.2f}" for name in ("Recall@1", "Recall@10", "MRR"))
        print(f"{folder.name} {answer.test:5} {answer.method:24} {answer.beam_width:3}  {shown}", flush=True)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", type=Path, nargs="+", help="folders that train.py wrote")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--brief", action="store_true", help="the constrained searches of the ablation alone")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    disable_progress_bar()  # that of transformers; ours stays
    for folder in args.checkpoints:
        evaluate(folder, args.data, args.out, brief=args.brief)


if __name__ == "__main__":
    main()
