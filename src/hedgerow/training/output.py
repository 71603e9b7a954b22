"""The files of a trained model: weights, tokenizer, tokens.json, split, metrics and model card."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from hedgerow import token_files
from hedgerow._version import __version__
from hedgerow.hf.known_sids import write_sids
from hedgerow.tokens import TokenMap
from hedgerow.training.options import TrainingOptions
from hedgerow.training.outcome import TrainingReport
from hedgerow.training.splits import Split
from hedgerow.training.trained import METRICS, SPLIT, checksum
from hedgerow.training.validation import NORMALIZE, K
from hedgerow.trie_index import TrieIndex

CARD = "README.md"


def write_model(
    folder: Path,
    model: Any,
    tokenizer: Any,
    tokens: TokenMap,
    index: TrieIndex,
    split: Split,
    options: TrainingOptions,
    report: TrainingReport,
) -> None:
    """Write all files of a trained model to a new folder.

    Args:
        folder: the folder; what is left of an interrupted writing is removed.
        model: the plain model.
        tokenizer: its tokenizer.
        tokens: its token map.
        index: the index.
        split: the split.
        options: the settings of the training.
        report: its result.
    """
    shutil.rmtree(folder, ignore_errors=True)
    logs = sorted(folder.parent.glob("runs/*"))
    folder.mkdir()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tokens.save(folder)
    file = folder / token_files.FILE
    token_files.write(file, token_files.read(file) | {"normalize": NORMALIZE})
    pq.write_table(split.to_arrow(), folder / SPLIT)
    write_sids(folder, index)
    facts = {
        "hedgerow": __version__,
        "options": asdict(options),
        "split": dict(split.method),
        "histories": checksum(split.histories, index),
        "users": len(split.histories),
        "interactions": len(split.histories.items),
        "unknown": split.histories.unknown,
        "duplicates": split.histories.duplicates,
        "parameters": report.parameters,
        "best": report.best,
        "validations": report.validations,
        "seconds": round(report.seconds),
    }
    (folder / METRICS).write_text(json.dumps(facts, indent=2, default=str) + "\n", encoding="utf-8")
    (folder / CARD).write_text(_card(split, options, report, tokens), encoding="utf-8")
    for number, path in enumerate(logs):
        shutil.copytree(path, folder / "logs" / str(number))


def _card(split: Split, options: TrainingOptions, report: TrainingReport, tokens: TokenMap) -> str:
    base = f"the base model {options.base}" if options.base else f"a new Qwen3 of size {options.size}"
    lines = [
        "---",
        "library_name: transformers",
        "tags: [generative-retrieval, recommendation, hedgerow]",
        "---",
        "",
        "# A model of histories",
        "",
        f"Trained by hedgerow {__version__} from {base}. It reads the Semantic IDs of the items that a user has seen, "
        "oldest first, and generates the Semantic ID of the next item.",
        "",
        f"- {report.parameters:,} parameters; {tokens.num_levels} levels of {list(tokens.codebook_sizes)} codes.",
        f"- {len(split.histories):,} users, {int(split.train.sum()):,} interactions that train; split: "
        f"{split.method.get('method', 'given')}. `{SPLIT}` says which interactions are training, validation and test.",
        f"- Histories of at most {options.max_items} items; scores are normalized over the allowed codes.",
        "",
        *_table(report),
        "",
        "```sh",
        "hedgerow retrieve MODEL INDEX --history ID,ID,ID",
        "hedgerow serve MODEL INDEX",
        "```",
        "",
        f"`{METRICS}` has all settings and validations.",
    ]
    return "\n".join(lines) + "\n"


def _table(report: TrainingReport) -> list[str]:
    """The validations as a table of Markdown."""
    if not report.validations:
        return ["There were no validation questions."]
    rows = [f"| {v['epoch']:.2f} | {v[f'recall@{K}']:.4f} | {v[f'ndcg@{K}']:.4f} |" for v in report.validations]
    return [
        f"The best validation was kept: Recall@{K} {report.best[f'recall@{K}']:.4f}, against "
        f"{report.best[f'popular recall@{K}']:.4f} of the most popular items.",
        "",
        f"| epoch | Recall@{K} | NDCG@{K} |",
        "| ---: | ---: | ---: |",
        *rows,
    ]
