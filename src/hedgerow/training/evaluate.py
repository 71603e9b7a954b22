"""evaluate(): trained models beside baselines and blends, on the questions of a split."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow._arguments import check_choice, whole_number
from hedgerow._version import __version__
from hedgerow.errors import ArgumentError
from hedgerow.hf.retriever import Retriever
from hedgerow.index.lookup import attribute_column
from hedgerow.training.baselines import (
    TEXT_POWER,
    content_knn,
    item_counts,
    item_knn,
    popularity,
    text_vectors,
)
from hedgerow.training.blending import DEPTH, Blend
from hedgerow.training.content import read_embeddings, read_quantizer
from hedgerow.training.evaluation import KS, Evaluation, Progress, candidates_among, evaluate_rankers
from hedgerow.training.histories import Histories, read_histories
from hedgerow.training.model_ranker import ModelRanker
from hedgerow.training.rankers import Done, Ranked, Ranker, ignore_done
from hedgerow.training.splits import NO_QUESTION, PARTS, Part, Questions, Split, later_questions, leave_one_out
from hedgerow.training.train import opened_index
from hedgerow.training.trained import options_of_model, split_of_model
from hedgerow.trie_index import TrieIndex

MODEL, POPULARITY, ITEM_KNN, TEXT_KNN, CONTENT_KNN = "model", "popularity", "item-knn", "text-knn", "content-knn"
# The modules of packages with another name.
MODULES = {"scikit-learn": "sklearn"}
# The number of validation questions that tune the weights of a blend.
TUNING = 1000


@dataclass(frozen=True)
class BlendSpec:
    """A blend to evaluate.

    Attributes:
        names: the names of the methods, for example ("model", "item-knn").
        weights: their weights. None: tuned on validation questions.
        drafts: the methods that draft. Default: all of `names`.

    Raises:
        ArgumentError: there are no names, one is there twice, or there is another number of weights.

    Examples:
        ```python
        from hedgerow.training import BlendSpec

        assert BlendSpec(("model", "item-knn")).label == "model + item-knn"
        assert BlendSpec(("model",), (1.0,), drafts=("text-knn",)).label == "model, drafts of text-knn"
        ```
    """

    names: tuple[str, ...]
    weights: tuple[float, ...] | None = None
    drafts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.names:
            if self.names.count(name) > 1:
                raise ArgumentError(f"a blend has each method once; {name!r} is there twice.")
        if not self.names or (self.weights is not None and len(self.weights) != len(self.names)):
            raise ArgumentError(f"a blend needs names, and no or one weight for each; got {self}.")

    @property
    def label(self) -> str:
        """The name of the row."""
        if self.drafts:
            return f"{' + '.join(self.names)}, drafts of {' + '.join(self.drafts)}"
        return " + ".join(self.names)


def evaluate(
    models: Any,
    index: Any,
    histories: Any,
    *,
    text: str | None = None,
    embeddings: Any = None,
    quantizer: Any = None,
    blends: Sequence[BlendSpec] = (),
    rankers: Mapping[str, Ranker] | None = None,
    part: Part = "test",
    later: Any = None,
    among: str = "all",
    users: int | None = None,
    ks: Sequence[int] = KS,
    beam_width: int = 50,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> Evaluation:
    """Evaluate a model beside baselines: popularity, item-kNN, and content-kNN where there is content.

    Each method has the training part of the split, and answers the same questions: the next item of a user, among all
    items that are not in the history.

    Args:
        models: the folder of a model that `hedgerow train` wrote, or a `Retriever`; or a list of several, for example
            of other seeds: the mean of their probabilities counts. None: baselines only.
        index: an index, a live index, or the path of either. Items that were removed from a live index are part of
            histories, but no candidates, and questions with such targets are not asked.
        histories: `Histories`, a `Split`, or the path of a file as for `read_histories`. Without a split, that of the
            folder of the model, otherwise `leave_one_out`.
        text: an attribute of the index with texts, for "text-knn": TF-IDF vectors.
        embeddings: the embeddings of the items, as for `train`, for "content-knn".
        quantizer: the quantizer that made the SIDs, or its file, for "content-knn" with the vectors of the SIDs.
        blends: the blends to evaluate, too.
        rankers: your own methods by name.
        part: "test", or "validation" to make choices.
        later: `Histories`, or the path of a file, with what the users did after `histories`, for questions in place of
            those of the split: the first later item of each user, after the whole history. Without a model that
            `hedgerow train` wrote, all of `histories` trains.
        among: the candidates: "all" items, or only the "cold" items, which have no interaction in the training part;
            then only questions with cold targets are asked.
        users: the number of questions, drawn at random. Default: all.
        ks: the cutoffs of Recall, at most `beam_width`.
        beam_width: M, the number of beams of the model.
        seed: the seed of samples and intervals.
        progress: called as ``progress(what, done, total)``.
        options: options of `hedgerow.hf.loading.load_retriever`, for example `device` or `normalize`.

    Raises:
        ArgumentError: an argument is invalid, or the model was trained on another split.
        MissingDependencyError: a package of the extra `evaluate` is not installed.

    Examples:
        ```python
        import hedgerow as hr
        import numpy as np
        import pyarrow as pa
        from hedgerow.training import BlendSpec, Histories, evaluate

        rng = np.random.default_rng(0)
        names = {"title": [f"red thing {row % 5}" for row in range(40)]}
        index = hr.build_index(hr.Catalog(np.arange(40)[:, None] // [8, 1] % 8, item_ids=range(40), attributes=names))
        rows = {"user": np.repeat(range(30), 4), "item_id": rng.integers(0, 40, 120), "timestamp": range(120)}
        histories = Histories.from_arrow(pa.table(rows), index)
        evaluation = evaluate(None, index, histories, text="title", blends=[BlendSpec(("item-knn", "text-knn"))])
        assert list(evaluation.ranked)[:3] == ["popularity", "item-knn", "text-knn"]
        ```
    """
    check_choice(part, "part", PARTS)
    if later is not None and part != "test":
        raise ArgumentError(f"later interactions are a test; got part={part!r}. Omit one of them.")
    if beam_width < max((whole_number(k, "k") for k in ks), default=0):
        raise ArgumentError(f"the cutoffs must be at most beam_width, {beam_width}; got {max(ks)}.")
    trie, version = opened_index(index)
    shown = None if version is None or not len(version.removed_rows) else ~version.removed
    folders = _as_list(models)
    split = _split(histories, trie, folders, is_asked_later=later is not None)
    candidates = candidates_among(among, item_counts(split.training, trie.num_items), shown)
    asked = split.questions(part) if later is None else later_questions(split.histories, _read(later, trie))
    questions = _among(asked, "later interactions" if later is not None else part, candidates)
    questions = questions if users is None else questions.sample(users, seed)
    known = _rankers(trie, split, text, embeddings, quantizer)
    if folders:
        known = {MODEL: _model(folders, trie, beam_width, options)} | known
    known |= dict(rankers or {})
    cached = {name: Remembered(ranker, max([DEPTH, *ks])) for name, ranker in known.items()}
    made = {spec.label: _blend(spec, cached, split, candidates, seed, progress) for spec in blends}
    settings = {
        "versions": _versions(),
        "models": [_described(model) for model in folders],
        "split": dict(split.method),
        "part": part,
        "later": later if isinstance(later, str | None) else str(later) if isinstance(later, Path) else "given",
        "users": users,
        "beam_width": beam_width,
        "options": {name: value for name, value in options.items() if value is not None},
        "text": text,
        "embeddings": embeddings if isinstance(embeddings, str | Path | None) else "given",
        "quantizer": quantizer if isinstance(quantizer, str | Path | None) else "given",
        "tuning_questions": TUNING,
        "blends": {label: dict(blend.weights) for label, blend in made.items()},
    }
    return evaluate_rankers(
        {**cached, **made},
        questions,
        split.training,
        trie.num_items,
        among=among,
        shown=shown,
        ks=ks,
        seed=seed,
        settings=settings,
        progress=progress,
    )


def _versions() -> dict[str, str]:
    """The versions of the packages on which the figures depend."""
    names = ("numpy", "torch", "transformers", "implicit", "scikit-learn")
    installed = {name: version(name) for name in names if find_spec(MODULES.get(name, name)) is not None}
    return {"hedgerow": __version__, "python": platform.python_version(), **installed}


def _described(model: Any) -> dict[str, Any]:
    """The folder of a model, and the options of its training; or the kind of a retriever."""
    if isinstance(model, Retriever):
        return {"model": repr(model)}
    return {"model": str(model), "options": options_of_model(model)}


class Remembered:
    """A ranker that keeps its last answers: blends ask for the lists of the same questions again."""

    def __init__(self, ranker: Ranker, depth: int) -> None:
        self.ranker, self.depth = ranker, depth
        self._last: tuple[Questions, np.ndarray | None, Ranked] | None = None

    def rank(
        self, questions: Questions, k: int, *, among: np.ndarray | None = None, done: Done = ignore_done
    ) -> Ranked:
        """As `Ranker.rank`."""
        last = self._last
        if last is None or last[0] is not questions or not _same(last[1], among):
            last = questions, among, self.ranker.rank(questions, max(k, self.depth), among=among, done=done)
            self._last = last
        return Ranked(last[2].items[:, :k], last[2].scores[:, :k])

    def scores(self, questions: Questions, items: np.ndarray, *, done: Done = ignore_done) -> np.ndarray:
        """As `Ranker.scores`."""
        return self.ranker.scores(questions, items, done=done)


def _as_list(models: Any) -> list[Any]:
    if models is None:
        return []
    return list(models) if isinstance(models, list | tuple) else [models]


def _same(some: np.ndarray | None, other: np.ndarray | None) -> bool:
    return some is other or (some is not None and other is not None and np.array_equal(some, other))


def _read(histories: Any, index: TrieIndex) -> Histories:
    return histories if isinstance(histories, Histories) else read_histories(histories, index)


def _split(histories: Any, index: TrieIndex, models: Sequence[Any], *, is_asked_later: bool) -> Split:
    """The split that is given, that of the model, or leave-one-out. All models must have been trained on it.

    With `is_asked_later`, the questions are others: without a split, everything trains.
    """
    split: Split | None = None
    if isinstance(histories, Split):
        split, found = histories, histories.histories
    else:
        found = _read(histories, index)
    for folder in models:
        trained = None if isinstance(folder, Retriever) else split_of_model(folder, found, index)
        if trained is None:
            continue
        split = split or trained
        if not all(np.array_equal(getattr(split, name), getattr(trained, name)) for name in ("train", *PARTS)):
            raise ArgumentError(
                f"{folder} was trained on another split, {dict(trained.method)}, so it may know the answers. Evaluate "
                "it on its own split: pass Histories instead of a Split, and models of one split."
            )
    if split is None and is_asked_later:
        none = np.full(len(found), NO_QUESTION)
        return Split(found, found.lengths, none, none, {"method": "all interactions train"})
    return split or leave_one_out(found)


def _rankers(index: TrieIndex, split: Split, text: str | None, embeddings: Any, quantizer: Any) -> dict[str, Ranker]:
    """The baselines by name."""
    if embeddings is not None and quantizer is not None:
        raise ArgumentError("pass embeddings or quantizer, not both: each gives the vectors of content-knn.")
    training, count = split.training, index.num_items
    rankers: dict[str, Ranker] = {
        POPULARITY: popularity(training, count),
        ITEM_KNN: item_knn(training, count),
    }
    if text is not None:
        column = attribute_column(index, text, "text")
        texts = ["" if value is None else str(value) for value in column.to_pylist()]
        rankers[TEXT_KNN] = content_knn(text_vectors(texts), power=TEXT_POWER)
    vectors = None
    if embeddings is not None:
        vectors = read_embeddings(index, embeddings)
    elif quantizer is not None:
        made = read_quantizer(quantizer)
        vectors = made.decode(index.sids_of(index.item_ids)[:, : made.num_levels])
    if vectors is not None:
        rankers[CONTENT_KNN] = content_knn(vectors - vectors.mean(axis=0))
    return rankers


def _model(models: Sequence[Any], index: TrieIndex, beam_width: int, options: Mapping[str, Any]) -> ModelRanker:
    from hedgerow.hf.loading import load_retriever

    return ModelRanker(
        [
            model if isinstance(model, Retriever) else load_retriever(Path(model).expanduser(), index, **options)
            for model in models
        ],
        beam_width=beam_width,
    )


def _blend(
    spec: BlendSpec,
    rankers: Mapping[str, Ranker],
    split: Split,
    candidates: np.ndarray | None,
    seed: int,
    progress: Progress | None,
) -> Blend:
    """A blend with the weights of a specification, or with tuned ones."""
    for name in (*spec.names, *spec.drafts):
        if name not in rankers:
            raise ArgumentError(f"there is no method {name!r} to blend; the methods are {', '.join(rankers)}.")
    if spec.weights is not None or len(spec.names) == 1:
        weights = spec.weights or (1.0,)
        return Blend(rankers, dict(zip(spec.names, weights, strict=True)), spec.drafts)
    return Blend.tuned(
        rankers,
        _among(_tuning_questions(split), "validation", candidates).sample(TUNING, seed),
        names=spec.names,
        drafts=spec.drafts,
        among=candidates,
        done=ignore_done if progress is None else partial(progress, f"tuning of {spec.label}"),
    )


def _tuning_questions(split: Split) -> Questions:
    """The validation questions.

    Raises:
        ArgumentError: there are none.
    """
    questions = split.questions("validation")
    if not len(questions):
        raise ArgumentError(
            "the weights of a blend are tuned on validation questions, and there are none. Give the weights: "
            "model=0.6,item-knn=0.4."
        )
    return questions


def _among(questions: Questions, part: str, candidates: np.ndarray | None) -> Questions:
    """The questions of a part whose targets are candidates.

    Raises:
        ArgumentError: there are none.
    """
    if candidates is None:
        return questions
    rows = np.flatnonzero(candidates[questions.targets])
    if not len(rows):
        raise ArgumentError(
            f"no question of the {part} has a target among the candidates. Cold items have no interaction in the "
            "training part, and items that were removed from a live index are no candidates. Split by an earlier time, "
            "give a blend its weights if they would be tuned on such questions, or evaluate among all items."
        )
    return Questions([questions.histories[row] for row in rows], questions.targets[rows], questions.users[rows])
