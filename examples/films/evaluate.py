"""Search with and without the constraint, for prompts that are not in the training data, and write `results.json`."""

import json
import os
import platform
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from statistics import fmean
from typing import Any

from paths import FILMS, OUT, RESULTS, SEED
from prompts import Film, Request, load_films
from questions import Question, questions
from rich.progress import track

import hedgerow as hr
from hedgerow.demo.films import load_retriever

BEAMS, TOP, BATCH = 50, 10, 32
PACKAGES = ("numpy", "pyarrow", "scikit-learn", "tokenizers", "torch", "transformers")


@dataclass(frozen=True)
class Answer:
    """The results of both searches for one question."""

    question: Question
    films: list[Film]  # the results of the constrained search, best first
    valid: list[bool]  # whether each beam of the unconstrained search matches a film, best first


def answers(films: list[Film]) -> Iterator[Answer]:
    catalog = hr.Catalog.from_parquet(FILMS, sid="sid", item_id="item_id")
    retriever = load_retriever(hr.build_index(catalog))
    by_id = {film["item_id"]: film for film in films}
    sids = {tuple(film["sid"]) for film in films}
    all_questions = list(questions(films))
    for start in track(range(0, len(all_questions), BATCH), "evaluating"):
        batch = all_questions[start : start + BATCH]
        prompts = [question.prompt for question in batch]
        constrained = retriever.retrieve(prompts, beam_width=BEAMS, k=TOP)
        free_sids, _ = retriever.free_search(prompts, beam_width=BEAMS)
        for question, results, beams in zip(batch, constrained, free_sids.tolist(), strict=True):
            best = [by_id[item] for item in results.item_ids]
            yield Answer(question, best, [tuple(sid) in sids for sid in beams])


def shares(request: Request, films: list[Film]) -> dict[str, float]:
    """The share of the films that have each requested fact."""
    rows = [request.met_by(film) for film in films]
    return {fact: fmean(row[fact] for row in rows) for fact in rows[0]}


def averaged(rows: Iterable[dict[str, float]]) -> dict[str, float]:
    """The mean of each fact over the rows that have it."""
    columns: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for fact, value in row.items():
            columns[fact].append(value)
    return {fact: round(fmean(values), 4) for fact, values in columns.items()}


def figures(part: list[Answer], chance: dict[Request, dict[str, float]]) -> dict[str, Any]:
    return {
        "prompts": len(part),
        "constrained_top_10": averaged(shares(answer.question.request, answer.films) for answer in part),
        "chance": averaged(chance[answer.question.request] for answer in part),
        "unconstrained_without_film": {
            "beams": round(1 - fmean(fmean(answer.valid) for answer in part), 4),
            "top_10": round(1 - fmean(fmean(answer.valid[:TOP]) for answer in part), 4),
            "prompts_with_one_in_top_10": round(fmean(not all(answer.valid[:TOP]) for answer in part), 4),
        },
    }


def main() -> None:
    films = load_films()
    all_answers = list(answers(films))
    chance = {request: shares(request, films) for request in {answer.question.request for answer in all_answers}}
    parts: dict[str, list[Answer]] = {"all": all_answers}
    for answer in all_answers:
        parts.setdefault(f"unseen {answer.question.unseen}", []).append(answer)
    results = {
        "held_out": {name: figures(part, chance) for name, part in parts.items()},
        "search": {"beams": BEAMS, "top": TOP, "seed": SEED},
        "catalog": {"films": len(films), "sids": len({tuple(film["sid"]) for film in films})},
        "training": json.loads((OUT / "training.json").read_text()),
        "versions": {"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
        "machine": {"cpus": os.cpu_count(), "architecture": platform.machine()},
    }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results["held_out"], indent=2))


if __name__ == "__main__":
    main()
