"""run(): one training, from checked arguments to the folder of the model."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import set_seed
from transformers.utils import logging

from hedgerow import metrics
from hedgerow.errors import ArgumentError
from hedgerow.training.base_model import base_network, new_network, vocabulary
from hedgerow.training.baselines import popularity
from hedgerow.training.batches import Collator, windows
from hedgerow.training.content import (
    Content,
    content_of_embeddings,
    content_of_quantizer,
    no_content,
    read_embeddings,
    read_quantizer,
)
from hedgerow.training.folders import MODEL, Folders, digest, fingerprint
from hedgerow.training.options import TrainingOptions
from hedgerow.training.outcome import Progress, TrainingReport
from hedgerow.training.output import write_model
from hedgerow.training.splits import Questions, Split
from hedgerow.training.trainer import HistoryTrainer, make_trainer, on_cpu
from hedgerow.training.validation import K, Validation
from hedgerow.training.vocabulary import item_tokens
from hedgerow.trie_index import TrieIndex


def run(
    index: TrieIndex,
    split: Split,
    output: Path,
    options: TrainingOptions,
    content: Mapping[str, Any],
    resume: bool,  # noqa: FBT001
    overwrite: bool,  # noqa: FBT001
    progress: Progress,
) -> TrainingReport:
    """Train, as for `train`. Each process of several GPUs calls it."""
    _check_device(options)
    tokenizer, tokens = vocabulary(index, options)
    codes = _content(index, content)
    parts = windows(split.training, options.max_items + 1)
    facts = {"options": asdict(options), "data": fingerprint(index, split) | {"content": _digest(codes)}}
    folders, questions = Folders(output), split.questions("validation").sample(options.validation_users, options.seed)
    # The first call decides: several processes on CPUs are only found with cpu=True.
    state = PartialState(cpu=on_cpu(options))
    opened = folders.opened(facts, resume=resume, overwrite=overwrite) if state.is_main_process else nullcontext()
    with folders.disk_errors(), opened as checkpoint, _quiet():
        state.wait_for_everyone()
        checkpoint = folders.last_checkpoint() if resume else checkpoint
        set_seed(options.seed)
        if options.base is None:
            network = new_network(index, tokenizer, tokens, codes, options)
        else:
            network = base_network(index, tokenizer, tokens, options)
        validation = Validation(index, tokens, questions, options.beam_width, progress) if len(questions) else None
        collator = Collator(item_tokens(tokens, index), tokenizer.pad_token_id or 0)
        trainer = make_trainer(network, parts, collator, options, folders.hidden, validation, progress)
        started = time.perf_counter()
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        seconds = time.perf_counter() - started
        report = _report(trainer, output, seconds, _popular(split, questions, index))
        if state.is_main_process:
            model = network.exported()
            report = replace(report, parameters=model.num_parameters())
            folder = folders.hidden / MODEL
            write_model(folder, model, tokenizer, tokens, index, split, options, report)
            folders.finish()
        state.wait_for_everyone()
    return report


def _check_device(options: TrainingOptions) -> None:
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ArgumentError("device='cuda' needs a GPU, and PyTorch finds none. Pass device='cpu', or omit it.")


def _content(index: TrieIndex, content: Mapping[str, Any]) -> Content:
    if content["quantizer"] is not None:
        return content_of_quantizer(index, read_quantizer(content["quantizer"]))
    if content["embeddings"] is not None:
        return content_of_embeddings(index, read_embeddings(index, content["embeddings"]))
    return no_content(index)


def _digest(content: Content) -> str:
    return digest([level for level in content if level is not None])


def _report(trainer: HistoryTrainer, output: Path, seconds: float, popular: float) -> TrainingReport:
    validations = [
        {name.removeprefix("eval_"): value for name, value in entry.items()}
        for entry in trainer.state.log_history
        if f"eval_recall@{K}" in entry
    ]
    best = max(validations, key=lambda entry: entry[f"recall@{K}"], default={})
    if best:
        best = best | {f"popular recall@{K}": popular}
    return TrainingReport(output, 0, best, validations, seconds)


def _popular(split: Split, questions: Questions, index: TrieIndex) -> float:
    """Recall@10 of the items that are most frequent in the training histories, without those of each history."""
    if not len(questions):
        return math.nan
    ranks = popularity(split.training, index.num_items).rank(questions, K).ranks(questions.targets)
    return float(metrics.recall(ranks, K).mean())


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the reports of transformers: ours shows the progress."""
    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()
