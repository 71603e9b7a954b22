"""Train one model, and keep the checkpoint of the epoch with the lowest loss on the warm validation users."""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional
from transformers.utils.logging import disable_progress_bar

from coldstart.batches import Batch, question_batches, training_batches
from coldstart.content import Content, text_embeddings, trained
from coldstart.network import SIZES, Network, Recipe
from coldstart.split import Split, split_of
from coldstart.tables import load

EPOCHS, BATCH, PEAK_RATE, WARM_UP, DECAY = 2, 256, 2e-3, 100, 0.05
FORGET = 0.1  # the share of the items of a history that are masked, so that a prediction does not depend on one item
PATIENCE = 2
RECIPES = {
    "full": Recipe(),
    "codes-only": Recipe(content=False),
    "untied": Recipe(tied=False),
    "plain": Recipe(content=False, tied=False),
    "no-prefix-loss": Recipe(prefix_loss=False),
    "256x4": Recipe(codebooks=(256,) * 4),
}


@dataclass(frozen=True)
class Run:
    """The settings of a run. The same settings and data give the same model on one machine."""

    recipe: str
    share: float
    tuning: bool
    seed: int
    size: str
    epochs: int

    @property
    def name(self) -> str:
        """The name of the folder of the checkpoint."""
        tuned = "-tuning" if self.tuning else ""
        return f"{self.recipe}-{100 * self.share:g}{tuned}-{self.size}-{self.seed}"


class Trainer:
    """The training of one network."""

    def __init__(self, run: Run, network: Network, content: Content, split: Split, device: torch.device) -> None:
        self.run, self.content, self.split, self.device = run, content, split, device
        self.recipe, self.network = RECIPES[run.recipe], network.to(device)
        self.random = np.random.default_rng(run.seed)
        groups = [[p for p in network.parameters() if (p.ndim > 1) == wide] for wide in (True, False)]
        decayed = [{"params": groups[0], "weight_decay": DECAY}, {"params": groups[1], "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(decayed, lr=PEAK_RATE, betas=(0.9, 0.98), fused=True)
        steps = run.epochs * math.ceil(len(split.training) / BATCH)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, lambda step: _rate(step, steps))

    def losses(self, batch: Batch) -> Tensor:
        """The mean cross-entropy [L] of the codes of each level."""
        batch = batch.to(self.device)
        network, longest = self.network, batch.first.shape[1]
        with torch.autocast(self.device.type, torch.bfloat16):
            embedded = functional.embedding(batch.tokens, network.inputs())
            embedded = functional.dropout(embedded, network.dropout, network.training)
            hidden = network.core(
                inputs_embeds=embedded,
                attention_mask=_added(self._seen(batch, longest)),
                position_ids=batch.positions,
                use_cache=False,
            ).last_hidden_state
            hidden = functional.dropout(hidden, network.dropout, network.training)
            rows = torch.arange(len(hidden), device=self.device)[:, None]
            if self.recipe.prefix_loss:
                pairs = [(hidden[:, :longest], batch.first)]
            else:
                pairs = [(hidden[rows, batch.places], batch.codes[..., 0])]
            levels = batch.codes.shape[-1]
            branches = hidden[:, longest:].reshape(*batch.codes.shape[:2], levels - 1, -1)
            pairs += [(branches[:, :, level - 1], batch.codes[..., level]) for level in range(1, levels)]
            return torch.stack([self._loss(*pair, level) for level, pair in enumerate(pairs)])

    def _loss(self, hidden: Tensor, codes: Tensor, level: int) -> Tensor:
        real = codes >= 0
        return functional.cross_entropy(self.network.logits(hidden[real], level).float(), codes[real])

    def _seen(self, batch: Batch, longest: int) -> Tensor:
        if not self.network.training:
            return batch.seen
        shown = torch.rand(batch.tokens.shape, device=self.device) > FORGET
        shown[:, 0], shown[:, longest:] = True, True
        itself = torch.eye(batch.seen.shape[1], dtype=torch.bool, device=self.device)
        return batch.seen & (shown[:, None] | itself)

    def epoch(self, progress: Progress) -> None:
        """Train on every sequence once."""
        self.network.train()
        count = math.ceil(len(self.split.training) / BATCH)
        task = progress.add_task("", total=count)
        starts = self.network.starts
        for batch in training_batches(self.split.training, self.content.sids, starts, BATCH, self.random):
            losses = self.losses(batch)
            self.optimiser.zero_grad()
            losses.sum().backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimiser.step()
            self.schedule.step()
            progress.update(task, advance=1, description=f"loss {losses.detach().sum():.3f}")
        progress.remove_task(task)

    @torch.no_grad()
    def validate(self) -> float:
        """The mean loss on the last items of the warm validation users, summed over the levels."""
        self.network.eval()
        asked, totals = self.split.validation, []
        inputs = asked.histories, asked.targets, self.content.sids, self.network.starts, BATCH
        for batch in question_batches(*inputs):
            # Each row has one question: the first code counts at its position only.
            ends = torch.arange(batch.first.shape[1]) == batch.places
            losses = self.losses(Batch(**(batch.__dict__ | {"first": torch.where(ends, batch.first, -1)})))
            totals.append((losses.sum().item(), len(batch.tokens)))
        return sum(loss * rows for loss, rows in totals) / max(1, sum(rows for _, rows in totals))


def _rate(step: int, steps: int) -> float:
    """The learning rate factor: warm-up, then a cosine to 2 % of the peak."""
    return min((step + 1) / WARM_UP, 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * min(1.0, step / steps))))


def _added(seen: Tensor) -> Tensor:
    """A boolean mask as the additive mask of eager attention."""
    return torch.zeros_like(seen, dtype=torch.bfloat16).masked_fill(~seen, torch.finfo(torch.bfloat16).min)[:, None]


def train(run: Run, data: Path, out: Path) -> Path:
    """Train one model and return the folder of its checkpoint.

    Args:
        run: the settings.
        data: the folder of the two tables.
        out: the folder of the checkpoints and of the cached embeddings.
    """
    torch.manual_seed(run.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shop = load(data)
    split = split_of(shop, run.share, tuning=run.tuning)
    recipe = RECIPES[run.recipe]
    content = trained(text_embeddings(shop, out / f"{data.name}.npy"), split, recipe.codebooks, run.seed)
    trainer = Trainer(run, Network(content, SIZES[run.size], recipe), content, split, device)
    folder, started, best, epochs_since_best = out / run.name, time.perf_counter(), math.inf, 0
    history: list[float] = []
    with Progress(transient=True) as progress:
        for _ in range(run.epochs):
            trainer.epoch(progress)
            history.append(round(trainer.validate(), 4))
            seconds = time.perf_counter() - started
            progress.console.print(f"{run.name}: epoch {len(history)}, validation {history[-1]:.4f}, {seconds:.0f} s")
            epochs_since_best = epochs_since_best + 1 if history[-1] >= best else 0
            if history[-1] < best:
                best = history[-1]
                save(folder, trainer, history, seconds)
            if epochs_since_best >= PATIENCE:
                break
    return folder


def save(folder: Path, trainer: Trainer, history: list[float], seconds: float) -> None:
    """Write the checkpoint: a model of transformers, the quantizer, and the settings of the run."""
    trainer.network.exported().save_pretrained(folder)
    trainer.content.quantizer.save(folder / "quantizer.safetensors")
    facts = asdict(trainer.run) | {
        "trained_parameters": sum(p.numel() for p in trainer.network.parameters()),
        "validation": history,
        "seconds": round(seconds),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if trainer.device.type == "cuda" else "cpu",
    }
    (folder / "run.json").write_text(json.dumps(facts, indent=2) + "\n")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with items.parquet and interactions.parquet")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--recipe", choices=RECIPES, default="full")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--cold", type=float, default=0.02, help="share of the items that are cold")
    parser.add_argument("--tuning", action="store_true", help="use the split for choices")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    disable_progress_bar()  # of transformers
    run = Run(args.recipe, args.cold, args.tuning, args.seed, args.size, args.epochs)
    print(train(run, args.data, args.out))


if __name__ == "__main__":
    main()
