"""The training loop: `transformers.Trainer` with batches of similar lengths, our validation, and our progress."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from torch.utils.data import Sampler
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from hedgerow.training.batches import ByLength, Collator, Sequences
from hedgerow.training.options import TrainingOptions
from hedgerow.training.outcome import Progress
from hedgerow.training.validation import K, Validation

METRIC = f"eval_recall@{K}"
WARM_UP = 20


class HistoryTrainer(Trainer):
    """A Trainer whose evaluation is a constrained search, and whose batches have sequences of similar lengths."""

    def __init__(self, *args: Any, lengths: np.ndarray, validation: Validation | None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.lengths, self.validation = lengths, validation
        # Ours shows the progress.
        self.remove_callback(PrinterCallback)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[Any]:  # noqa: ARG002
        return ByLength(self.lengths, self.args.train_batch_size * self.args.world_size, self.args.seed)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save what is trained; the rest of a base model is loaded from its own folder."""
        network: Any = self.model
        trained = {name for name, value in network.named_parameters() if value.requires_grad}
        state = network.state_dict() if state_dict is None else state_dict
        super()._save(output_dir, {name: value for name, value in state.items() if name in trained})

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Validate on the main process; the others wait for its result, because all of them may stop early."""
        found: list[Any] = [None]
        if self.validation is not None and self.is_world_process_zero():
            model: Any = self.accelerator.unwrap_model(self.model)
            with warnings.catch_warnings():
                # A base model can need a slower search, about which the user of the trained model is warned.
                warnings.simplefilter("ignore", UserWarning)
                found[0] = self.validation.metrics(model.searched())
        broadcast_object_list(found)
        metrics = {f"eval_{name}": value for name, value in (found[0] or {}).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """The matrices, without embeddings of words that no history has: only the decay would change them."""
        names = super().get_decay_parameter_names(model)
        kept = getattr(model, "kept_embeddings", frozenset())
        return [name for name in names if name not in kept]


class ProgressCallback(TrainerCallback):
    """Reports each step, and validates after the last."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Report a step."""
        if state.is_world_process_zero:
            best = "" if state.best_metric is None else f", best Recall@{K} {state.best_metric:.4f}"
            epochs = f"epoch {math.ceil(state.epoch or 1)} of {math.ceil(args.num_train_epochs)}"
            self.progress(f"{epochs}{best}", state.global_step, state.max_steps)
        if state.global_step >= state.max_steps and args.eval_strategy != "no":
            control.should_evaluate = True


def training_arguments(
    options: TrainingOptions, folder: Path, num_sequences: int, *, validated: bool
) -> TrainingArguments:
    """The arguments of `transformers.Trainer` for a training.

    Args:
        options: the settings.
        folder: the folder of the checkpoints.
        num_sequences: the number of training sequences.
        validated: whether there are validation questions.
    """
    is_on_cpu = on_cpu(options)
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.size_of_batch(num_sequences),
        learning_rate=options.rate,
        lr_scheduler_type="cosine",
        weight_decay=options.weight_decay,
        adam_beta2=0.98,
        optim="adamw_torch_fused",
        max_grad_norm=1.0,
        bf16=_computes_bfloat16(options, is_on_cpu=is_on_cpu),
        use_cpu=is_on_cpu,
        seed=options.seed,
        data_seed=options.seed,
        report_to="tensorboard" if options.tensorboard else "none",
        logging_steps=50,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=not is_on_cpu,
        eval_strategy="steps" if validated else "no",
        save_strategy="steps",
        save_total_limit=2,
        load_best_model_at_end=validated,
        metric_for_best_model=METRIC if validated else None,
        greater_is_better=True if validated else None,
    )
    # Without a launcher, PyTorch would copy the model to all GPUs at every step; `accelerate launch` is faster.
    arguments._n_gpu = min(1, arguments.n_gpu)
    per_epoch = math.ceil(num_sequences / (arguments.train_batch_size * arguments.world_size))
    every = math.ceil(per_epoch * options.validate_every)
    arguments.eval_steps = arguments.save_steps = every
    arguments.warmup_steps = max(1, options.epochs * per_epoch // WARM_UP)
    return arguments


def make_trainer(
    network: torch.nn.Module,
    parts: list[np.ndarray],
    collator: Collator,
    options: TrainingOptions,
    folder: Path,
    validation: Validation | None,
    progress: Progress,
) -> HistoryTrainer:
    """The trainer of a network."""
    arguments = training_arguments(options, folder, len(parts), validated=validation is not None)
    callbacks: list[TrainerCallback] = [ProgressCallback(progress)]
    if validation is not None and options.patience is not None:
        callbacks.append(EarlyStoppingCallback(options.patience))
    return HistoryTrainer(
        network,
        arguments,
        collator,
        Sequences(parts, options.item_dropout, options.seed),
        callbacks=callbacks,
        lengths=np.array([len(part) for part in parts]),
        validation=validation,
        eval_dataset=Sequences([], 0, 0) if validation is not None else None,
    )


def on_cpu(options: TrainingOptions) -> bool:
    """Whether a training runs on CPUs."""
    return options.device == "cpu" or not torch.cuda.is_available()


def _computes_bfloat16(options: TrainingOptions, *, is_on_cpu: bool) -> bool:
    if options.precision != "auto":
        return options.precision == "bfloat16"
    if is_on_cpu:
        return torch.cpu._is_amx_tile_supported()
    return torch.cuda.is_bf16_supported()
