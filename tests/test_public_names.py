"""The public names, listed literally, so that a change of the public interface changes this test."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

import hedgerow as hr

HEDGEROW = [
    "ArgumentError",
    "BackendError",
    "Beams",
    "CandidateIndex",
    "Capacity",
    "Catalog",
    "CatalogError",
    "ConstraintError",
    "ConstraintSet",
    "Coverage",
    "DeadlineError",
    "DeviceIndex",
    "Diff",
    "HedgerowError",
    "HistoryForm",
    "IndexFileError",
    "LiveIndex",
    "MissingDependencyError",
    "PreparedConstraints",
    "PromptLengthError",
    "Quantizer",
    "QuantizerFileError",
    "Request",
    "Results",
    "SemanticIds",
    "TokenMap",
    "TrieIndex",
    "Version",
    "VersionError",
    "beam_search",
    "best_of",
    "build_index",
    "concat",
    "diff",
    "embed_texts",
    "init_beams",
    "load_index",
    "log_probs",
    "masked_probability",
    "merge",
    "metrics",
    "prepare_constraints",
    "results_of",
    "semantic_ids",
    "step",
]
DISTRIBUTED = ["check_code_ranges", "even_code_ranges", "gather_over"]
EXPORT = ["plain_step", "step_arrays"]
HF = ["CatalogLogitsProcessor", "Explanation", "Retriever", "Shapes", "generate", "plot_beams"]
TRAINING = [
    "Blend",
    "BlendSpec",
    "Evaluation",
    "EvaluationRow",
    "Histories",
    "ModelRanker",
    "Questions",
    "Ranked",
    "Ranker",
    "ScoreRanker",
    "SidLoss",
    "Split",
    "TrainingOptions",
    "TrainingReport",
    "content_knn",
    "evaluate",
    "evaluate_rankers",
    "item_knn",
    "leave_one_out",
    "plot_evaluation",
    "popularity",
    "read_histories",
    "split_by_time",
    "text_vectors",
    "train",
]
RAY = ["Retrieve", "application", "build", "start"]
METRICS = [
    "Estimate",
    "bootstrap_ci",
    "ndcg",
    "novelty",
    "random_baseline",
    "ranks",
    "ranks_of_scores",
    "recall",
    "reciprocal_rank",
    "summary",
]
# Class -> its public attributes, properties and methods.
MEMBERS = {
    "TrieIndex": [
        "allowed_codes",
        "attributes",
        "candidates",
        "codebook_sizes",
        "collisions",
        "constraint",
        "contains",
        "describe",
        "end_codes",
        "filter",
        "find",
        "item_ids",
        "items_table",
        "layout",
        "leaf_forks",
        "leaf_start",
        "levels",
        "max_branch_factors",
        "nbytes",
        "newest",
        "nodes_per_level",
        "num_items",
        "num_levels",
        "num_sids",
        "ragged",
        "results",
        "rows",
        "rows_of",
        "save",
        "sids",
        "sids_of",
        "to",
        "where",
        "with_attributes",
    ],
    "Catalog": [
        "attribute_names",
        "attributes",
        "codebook_sizes",
        "end_codes",
        "filter",
        "from_arrow",
        "from_csv",
        "from_duckdb",
        "from_json",
        "from_pandas",
        "from_parquet",
        "from_polars",
        "has_item_ids",
        "item_ids",
        "num_items",
        "num_levels",
        "ragged",
        "sids",
    ],
    "ConstraintSet": ["index", "mask", "name", "named", "nbytes", "nodes_per_level", "num_items", "num_sids"],
    "DeviceIndex": ["backend", "capacity", "device", "levels", "num_levels", "refill"],
    "CandidateIndex": ["num_requests", "results", "rows", "to"],
    "Capacity": ["holds", "levels", "of"],
    "Beams": ["code_scores", "codes", "level", "num_valid", "parents", "scores", "states"],
    "Results": [
        "attributes",
        "code_scores",
        "complete",
        "head",
        "item_ids",
        "num_valid",
        "reason",
        "rows",
        "scores",
        "sids",
        "sort_by",
        "to_pylist",
    ],
    "PreparedConstraints": ["batch_size", "copy", "levels", "refill"],
    "Coverage": ["add", "beams", "counts", "dead_beams", "index", "items", "num_returned", "requests", "share"],
    "TokenMap": [
        "begin",
        "check",
        "code_logits",
        "codebook_sizes",
        "decode",
        "detect",
        "encode",
        "end",
        "ending_with",
        "from_offsets",
        "from_tokenizer",
        "history",
        "load",
        "missing",
        "num_levels",
        "of_index",
        "save",
        "token_ids",
    ],
    "LiveIndex": [
        "add",
        "create",
        "load_version",
        "open",
        "path",
        "prune",
        "publish",
        "pull",
        "refresh",
        "remove",
        "rollback",
        "update",
        "update_attributes",
        "update_in_background",
        "verify",
        "version",
        "versions",
    ],
    "Version": [
        "index",
        "info",
        "live_items",
        "num_items",
        "number",
        "removed",
        "removed_rows",
        "restrict",
        "results",
        "to",
    ],
    "Quantizer": [
        "assign",
        "codebook_sizes",
        "codebooks",
        "decode",
        "deduplicating",
        "deduplication_codes",
        "dim",
        "dimensions",
        "encode",
        "load",
        "method",
        "num_levels",
        "rotation",
        "save",
        "text_columns",
        "training",
    ],
    "SemanticIds": ["codebook_sizes", "embeddings", "quantizer", "report", "sids"],
}
RETRIEVER = [
    "answer",
    "code_logits",
    "decoding",
    "device_index",
    "encode",
    "explain",
    "free_search",
    "history_prompt",
    "index",
    "length_penalty",
    "logits_fn",
    "max_tokens",
    "model",
    "normalize",
    "refresh",
    "retrieve",
    "score",
    "temperature",
    "tokenizer",
    "tokens",
    "trace",
    "version",
    "warm_up",
]
BENCH = ["--backend", "--device", "--items", "--out", "--quick", "--reference", "--threads"]
MODEL = [
    "--beam-width",
    "--compile",
    "--device",
    "--dtype",
    "--end",
    "--exclude",
    "--candidates",
    "--caps",
    "--history",
    "--order-by",
    "--index",
    "--json",
    "--model",
    "--normalize",
    "--prompt",
    "--repeat",
    "--temperature",
    "--tokens",
    "--where",
    "-k",
    "-p",
    "INDEX_FOLDER",
    "MODEL_FOLDER",
]
LIVE_ITEMS = [
    "--allow",
    "--as-text",
    "--attributes",
    "--dates",
    "--item-id",
    "--missing-attributes",
    "--new-attributes",
    "--sid",
    "--types",
    "ITEMS",
    "PATH",
]
# Command -> its options. Positional arguments are in capitals.
COMMANDS = {
    "hedgerow": ["--log-level", "--version"],
    "hedgerow build": [
        "--as-text",
        "--attributes",
        "--codebook-sizes",
        "--compact",
        "--dates",
        "--dense-levels",
        "--item-id",
        "--json",
        "--memory",
        "--output",
        "--overwrite",
        "--ragged",
        "--ray",
        "--sid",
        "--types",
        "--workers",
        "-o",
        "SOURCES",
    ],
    "hedgerow inspect": ["--json", "--where", "PATH"],
    "hedgerow verify": ["--json", "PATH"],
    "hedgerow filter": ["--allow-empty", "--json", "--output", "--overwrite", "--where", "-o", "EXPRESSION", "INDEX"],
    "hedgerow diff": ["--json", "--limit", "NEW", "OLD"],
    "hedgerow live": [],
    "hedgerow live init": ["INDEX", "PATH"],
    "hedgerow live add": LIVE_ITEMS,
    "hedgerow live update": LIVE_ITEMS,
    "hedgerow live update-attributes": [
        "--attributes",
        "--dates",
        "--drop",
        "--item-id",
        "--json",
        "--new-attributes",
        "--unknown",
        "PATH",
        "ROWS",
    ],
    "hedgerow live verify": ["--json", "PATH"],
    "hedgerow live publish": ["--allow", "INDEX", "PATH"],
    "hedgerow live remove": [
        "--allow",
        "--input",
        "IDS",
        "PATH",
    ],
    "hedgerow live rollback": ["--to", "PATH"],
    "hedgerow live prune": ["--keep", "PATH"],
    "hedgerow live pull": ["--follow", "--interval", "--keep", "PATH", "SOURCE"],
    "hedgerow live status": ["--json", "PATH"],
    "hedgerow retrieve": [*MODEL, "--fill", "--columns", "--input", "--output", "--ray", "--workers", "-o"],
    "hedgerow warm-up": [
        "--batch-sizes",
        "--beam-width",
        "--compile",
        "--device",
        "--dtype",
        "--end",
        "--index",
        "--json",
        "--model",
        "--normalize",
        "--temperature",
        "--tokens",
        "INDEX_FOLDER",
        "MODEL_FOLDER",
    ],
    "hedgerow evaluate": [
        "--dates",
        "--later",
        "--among",
        "--beam-width",
        "--blend",
        "--csv",
        "--device",
        "--duplicates",
        "--embeddings",
        "--in-order",
        "--item",
        "--json",
        "--normalize",
        "--part",
        "--plot",
        "--quantizer",
        "--seed",
        "--split",
        "--text",
        "--timestamp",
        "--unknown",
        "--user",
        "--users",
        "--verify",
        "-k",
        "HISTORIES",
        "INDEX",
        "MODELS",
    ],
    "hedgerow explain": [*MODEL, "--item", "--plot"],
    "hedgerow train": [
        "--dates",
        "--base",
        "--batch-size",
        "--beam-width",
        "--device",
        "--dropout",
        "--duplicates",
        "--embeddings",
        "--epochs",
        "--in-order",
        "--item",
        "--item-dropout",
        "--json",
        "--learning-rate",
        "--lora",
        "--loss",
        "--max-items",
        "--output",
        "--overwrite",
        "--patience",
        "--precision",
        "--quantizer",
        "--resume",
        "--seed",
        "--separator",
        "--size",
        "--split",
        "--tensorboard",
        "--timestamp",
        "--unknown",
        "--user",
        "--validate-every",
        "--validation-users",
        "--weight-decay",
        "-o",
        "HISTORIES",
        "INDEX",
    ],
    "hedgerow semantic-ids": [
        "--dates",
        "--category",
        "--codebook-sizes",
        "--deduplicate",
        "--deduplication-codes",
        "--drop",
        "--embeddings",
        "--item-id",
        "--items-per-sid",
        "--json",
        "--levels",
        "--method",
        "--model",
        "--on-collision",
        "--output",
        "--overwrite",
        "--quantizer",
        "--seed",
        "--sid",
        "--taken",
        "--text",
        "--with-quantizer",
        "-o",
        "SOURCE",
    ],
    "hedgerow demo": ["--beam-width", "--export", "--json", "--overwrite", "--prompt", "--since", "-k", "-p"],
    "hedgerow plan": ["--codebook-sizes", "--compact", "--items", "--json", "--levels", "--rate"],
    "hedgerow bench": [],
    "hedgerow bench paper": [*BENCH, "--case"],
    "hedgerow bench scale": BENCH,
    "hedgerow bench branch": BENCH,
    "hedgerow bench peers": BENCH,
    "hedgerow bench first-call": ["--items", "--out", "--quick", "--repeats"],
    "hedgerow bench build": ["--codebook-sizes", "--items", "--levels", "--out", "--quick", "--reference", "--repeats"],
    "hedgerow serve": [
        "--allow-where",
        "--beam-width",
        "--canary",
        "--compile",
        "--cuda-graphs",
        "--deadline-ms",
        "--device",
        "--drain-seconds",
        "--dtype",
        "--follow",
        "--follow-seconds",
        "--host",
        "--log-prompts",
        "--max-batch",
        "--max-wait-ms",
        "--name",
        "--quiet",
        "--normalize",
        "--open-metrics",
        "--otel",
        "--port",
        "--prefix",
        "--prompt-tokens",
        "--queue",
        "--rules",
        "--temperature",
        "--token-file",
        "--tokens",
        "INDEX",
        "MODEL",
    ],
    "hedgerow bench serve": [
        "--beam-width",
        "--clients",
        "--index",
        "--mix",
        "--out",
        "--prompts",
        "--rate",
        "--seconds",
        "--token-file",
        "-k",
        "URL",
    ],
    "hedgerow bench sets": ["--backend", "--device", "--items", "--out", "--quick", "--threads"],
}


def members_of(class_: type) -> list[str]:
    """The public methods, properties and fields of a class and its bases, and the attributes that its methods set."""
    names: set[str] = set()
    for base in class_.__mro__:
        if base.__module__.partition(".")[0] == "hedgerow":
            names |= {*vars(base), *vars(base).get("__annotations__", {}), *instance_attributes(base)}
    return sorted(name for name in names if not name.startswith("_"))


def instance_attributes(class_: type) -> Iterator[str]:
    """The names that the methods of a class assign as `self.name`."""
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(class_)))):
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name


def commands_of(command: Any, path: str) -> Iterator[tuple[str, list[str]]]:
    """The path and the sorted parameters of a command and of its subcommands."""
    parameters = [
        spelling.upper() if parameter.param_type_name == "argument" else spelling
        for parameter in command.params
        for spelling in (*parameter.opts, *parameter.secondary_opts)
    ]
    yield path, sorted(parameters)
    for name, child in getattr(command, "commands", {}).items():
        yield from commands_of(child, f"{path} {name}")


def test_names_of_hedgerow():
    assert hr.__all__ == HEDGEROW


def test_names_of_metrics():
    assert hr.metrics.__all__ == METRICS


def test_names_of_distributed():
    pytest.importorskip("torch")
    import hedgerow.distributed

    assert hedgerow.distributed.__all__ == DISTRIBUTED


def test_names_of_export():
    import hedgerow.export

    assert hedgerow.export.__all__ == EXPORT


def test_names_of_hf():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    import hedgerow.hf

    assert sorted(hedgerow.hf.__all__) == HF


def test_names_of_training():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    import hedgerow.training

    assert hedgerow.training.__all__ == TRAINING


def test_names_of_ray():
    pytest.importorskip("ray")
    import hedgerow.ray

    assert hedgerow.ray.__all__ == RAY


@pytest.mark.parametrize("name", MEMBERS)
def test_members(name):
    assert members_of(getattr(hr, name)) == MEMBERS[name]


def test_members_of_retriever():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from hedgerow.hf import Retriever

    assert members_of(Retriever) == RETRIEVER


def test_commands():
    from typer.main import get_command

    from hedgerow.cli.main import app

    commands = dict(commands_of(get_command(app), "hedgerow"))
    assert commands == {path: sorted(parameters) for path, parameters in COMMANDS.items()}
