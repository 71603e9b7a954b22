"""TrainingOptions: the settings of a training, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from hedgerow._arguments import check_choice, positive_number, whole_number
from hedgerow.errors import ArgumentError


@dataclass(frozen=True)
class Size:
    """The size of a new model.

    Attributes:
        hidden: the width.
        layers: the number of layers.
        heads: the number of attention heads.
    """

    hidden: int
    layers: int
    heads: int


SIZES = {
    "tiny": Size(64, 2, 2),
    "small": Size(128, 2, 4),
    "medium": Size(256, 4, 4),
    "large": Size(512, 8, 8),
}
LOSSES = ("codes", "allowed")
PRECISIONS = ("auto", "float32", "bfloat16")
# Learning rates of new models, of base models, and of adapters.
NEW_RATE, BASE_RATE, LORA_RATE = 3e-3, 1e-4, 3e-4
# The smallest and the largest default of the batch size, and the steps per epoch that it aims at.
BATCHES, STEPS = (16, 256), 100


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The settings of a training.

    Attributes:
        size: the size of a new model: "tiny", "small", "medium" or "large". Not used with `base`.
        base: the folder of a causal language model of transformers to start from. Its tokenizer gets the tokens of the
            codes. Default: a new model.
        lora: the rank of adapters of peft, to train instead of all weights of `base`, besides the embeddings. They are
            merged at the end. Default: all weights are trained.
        epochs: the largest number of passes over the histories. Early stopping can end the training before.
        batch_size: the number of sequences per step and device. Default: a power of two from 16 to 256 that gives about
            a hundred steps per epoch.
        learning_rate: the largest learning rate: it increases for a twentieth of the steps, then decreases to 0 as a
            cosine. Default: 3e-3 for a new model, 1e-4 for a base model, 3e-4 with `lora`.
        loss: the codes among which the next code is predicted: "codes", all codes of its level, or "allowed", those
            that may follow in the index, as `SidLoss` does.
        weight_decay: the decay of AdamW, of matrices.
        dropout: the probability with which numbers of embeddings and of last hidden states are dropped. Of a new
            model only.
        item_dropout: the probability with which an item is left out of a sequence, so that a prediction does not
            depend on one item.
        max_items: the largest number of items of a history in a prompt: the latest. Longer histories are cut into
            overlapping sequences for the training.
        separator: whether a token separates the items of a history.
        patience: the number of validations without a better Recall@10 after which the training stops. None: it never
            stops early; the best checkpoint is kept all the same.
        validate_every: the number of epochs between two validations and checkpoints; 0.25: four per epoch.
        validation_users: the number of users of the validation, drawn at random.
        beam_width: M, the number of beams of the validation.
        precision: the type of numbers in matrix products: "float32", "bfloat16", or "auto": bfloat16 if the device
            computes with it.
        device: "cpu" or "cuda". Default: "cuda" if there is a GPU.
        seed: the seed of the initial weights, of the order of sequences and of what is dropped.
        tensorboard: write logs for TensorBoard into the folder "logs" of the output.

    Raises:
        ArgumentError: a setting is out of range, or does not fit the others.

    Examples:
        ```python
        from hedgerow.training import TrainingOptions

        options = TrainingOptions(size="tiny", epochs=3)
        assert options.item_dropout < 1
        ```
    """

    size: str = "small"
    base: str | Path | None = None
    lora: int | None = None
    epochs: int = 8
    batch_size: int | None = None
    learning_rate: float | None = None
    loss: str = "codes"
    weight_decay: float = 0.05
    dropout: float = 0.1
    item_dropout: float = 0.1
    max_items: int = 20
    separator: bool = False
    patience: int | None = 3
    validate_every: float = 1.0
    validation_users: int = 2000
    beam_width: int = 20
    precision: str = "auto"
    device: str | None = None
    seed: int = 0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        check_choice(self.size, "size", tuple(SIZES))
        check_choice(self.loss, "loss", LOSSES)
        check_choice(self.precision, "precision", PRECISIONS)
        check_choice(self.device, "device", ("cpu", "cuda", None))
        for name in ("epochs", "max_items", "validation_users", "beam_width"):
            whole_number(getattr(self, name), name)
        for name in ("batch_size", "lora", "patience"):
            if getattr(self, name) is not None:
                whole_number(getattr(self, name), name)
        whole_number(self.seed, "seed", 0, 2**32 - 1)
        positive_number(self.validate_every, "validate_every")
        if self.learning_rate is not None:
            positive_number(self.learning_rate, "learning_rate")
        _check_number(self.weight_decay, "weight_decay", math.inf)
        for name in ("dropout", "item_dropout"):
            _check_number(getattr(self, name), name, 1)
        if self.lora is not None and self.base is None:
            raise ArgumentError("lora needs base: adapters are trained on a base model. Pass base=, or --base.")

    def size_of_batch(self, num_sequences: int) -> int:
        """The number of sequences per step, given or for a number of sequences."""
        if self.batch_size is not None:
            return self.batch_size
        return int(min(BATCHES[1], max(BATCHES[0], 2 ** round(math.log2(max(1, num_sequences / STEPS))))))

    @property
    def rate(self) -> float:
        """The learning rate, or the default for the kind of model."""
        if self.learning_rate is not None:
            return self.learning_rate
        if self.base is None:
            return NEW_RATE
        return BASE_RATE if self.lora is None else LORA_RATE


def _check_number(value: Any, name: str, limit: float) -> None:
    """Check that a number is at least 0 and below a limit."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < limit:
        below = "" if math.isinf(limit) else f" and below {limit:g}"
        raise ArgumentError(f"{name} must be a number of at least 0{below}; got {value!r}.")
