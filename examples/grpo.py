"""GRPO with a catalog: the demo's model learns to recommend the best reviewed films of a genre, and samples only films.

Run it with the packages of the extras `demo` and `train`: python examples/grpo.py --steps 60
"""

import argparse
import os
import tempfile
import warnings

import numpy as np
import torch
from datasets import Dataset

# TRL warns that rollout_func may change.
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
from transformers import PrinterCallback, TrainerCallback, set_seed
from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportPrivateImportUsage]

import hedgerow as hr
from hedgerow.demo.films import load_catalog, load_retriever
from hedgerow.hf import CatalogLogitsProcessor, Retriever

GENRES = ("western", "horror", "comedy", "sci-fi", "documentary", "romance", "war", "animation")
PROMPTS = {f"Recommend me a {genre} film": genre for genre in GENRES}
# Rollouts per prompt, and ranks that have a reward.
GROUP, K = 16, 1000


class Policy:
    """The model as a policy over the films: it samples them, and knows the probabilities with which it does."""

    def __init__(self, retriever: Retriever) -> None:
        self.index, self.tokens = retriever.index, retriever.tokens
        self.encode, self.pad = retriever.encode, retriever.tokenizer.pad_token_id
        self.on_device = self.index.to("torch", retriever.model.device)
        self.processor = CatalogLogitsProcessor(self.index, self.tokens)
        self.rollouts = 0

    def sample(self, model, prompts: list[str]) -> tuple[list[list[int]], torch.Tensor]:
        """The tokens of the prompts, and the tokens [B, L] of one film for each."""
        ids = self.encode(prompts)
        width = max(map(len, ids))
        padded = torch.tensor([[self.pad] * (width - len(row)) + row for row in ids], device=model.device)
        sampling = {"do_sample": True, "top_k": 0, "max_new_tokens": self.index.num_levels, "eos_token_id": None}
        with torch.no_grad():
            written = model.generate(
                padded,
                attention_mask=(padded != self.pad).long(),
                logits_processor=[self.processor],
                pad_token_id=self.pad,
                **sampling,
            )
        films = written[:, width:]
        # What the processor is for: every rollout is an item.
        assert self.index.contains(self.tokens.decode(films.cpu())).all()
        self.rollouts += len(films)
        return ids, films

    def log_probs(self, logits: torch.Tensor, films: torch.Tensor) -> torch.Tensor:
        """The log-probabilities [B, L] of the tokens of films, from the logits [B, L, V] before each of them."""
        sids = torch.from_numpy(self.tokens.decode(films.cpu())).to(films.device)
        return hr.log_probs(self.on_device, self.tokens.code_logits(logits, self.index), sids, normalize="allowed")


class CatalogTrainer(GRPOTrainer):
    """A GRPOTrainer whose policy is renormalized over the films: TRL has no public hook for log-probabilities."""

    policy: Policy

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, *_, **__):  # type: ignore[override]
        logits = model(input_ids=input_ids, attention_mask=attention_mask).logits
        found = self.policy.log_probs(logits[:, -logits_to_keep - 1 : -1], input_ids[:, -logits_to_keep:])
        # Of one sample, an estimate of the entropy, which TRL logs.
        return found, -found.detach(), None


class Progress(TrainerCallback):
    """Prints the mean reward now and then."""

    def on_log(self, args, state, control, logs=None, **_):  # noqa: ARG002
        """Print a line."""
        if logs and "reward" in logs:
            print(f"step {state.global_step} of {state.max_steps}: mean reward {logs['reward']:.3f}", flush=True)


def ranking(index: hr.TrieIndex, genre: str) -> dict[int, int]:
    """The rank of each film of a genre by its reviews, from 1."""
    films = index.items_table.select(["item_id", "genres", "tomatometer", "reviews"]).to_pylist()
    known = [film for film in films if genre in film["genres"] and film["tomatometer"] is not None]
    known.sort(key=lambda film: (-film["tomatometer"], -(film["reviews"] or 0)))
    return {film["item_id"]: rank for rank, film in enumerate(known, 1)}


def reward_of(policy: Policy):
    """The reward of rollouts: the NDCG@K of the film in the ranking of the genre that the prompt asks for."""
    ranks = {prompt: ranking(policy.index, genre) for prompt, genre in PROMPTS.items()}

    def reward(prompts: list[str], completion_ids: list[list[int]], **_) -> list[float | None]:
        films = hr.results_of(policy.index, policy.tokens, np.array(completion_ids), prompt_length=0)
        found = [
            min((ranks[prompt].get(item, np.inf) for item in results.item_ids), default=np.inf)
            for prompt, results in zip(prompts, films, strict=True)
        ]
        return hr.metrics.ndcg(found, K).tolist()

    return reward


def train(steps: int, samples: int) -> tuple[float, float]:
    """Train for some steps. Returns the mean reward before and after, of `samples` films for each prompt."""
    set_seed(0)
    retriever = load_retriever(hr.build_index(load_catalog()))
    policy = Policy(retriever)
    reward = reward_of(policy)

    def rollout(prompts: list[str], trainer: GRPOTrainer) -> dict[str, list]:
        ids, films = policy.sample(trainer.accelerator.unwrap_model(trainer.model), prompts)
        return {"prompt_ids": ids, "completion_ids": films.tolist(), "logprobs": None}  # type: ignore[dict-item]

    def mean_reward() -> float:
        prompts = [prompt for prompt in PROMPTS for _ in range(samples)]
        return float(np.array(reward(prompts, policy.sample(retriever.model, prompts)[1].tolist()), float).mean())

    with tempfile.TemporaryDirectory() as folder:
        arguments = GRPOConfig(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=len(PROMPTS) * GROUP,
            num_generations=GROUP,
            max_completion_length=policy.index.num_levels,
            learning_rate=2e-4,
            lr_scheduler_type="constant",
            beta=0.0,
            logging_steps=min(10, steps),
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=not torch.cuda.is_available(),
        )
        trainer = CatalogTrainer(
            retriever.model,
            reward,
            arguments,
            Dataset.from_dict({"prompt": list(PROMPTS)}),
            processing_class=retriever.tokenizer,
            rollout_func=rollout,
            callbacks=[Progress()],
        )
        trainer.policy = policy
        trainer.remove_callback(PrinterCallback)
        before = mean_reward()
        trainer.train()
        after = mean_reward()
    print(f"{policy.rollouts:,} rollouts, all of them films; mean reward {before:.3f} before, {after:.3f} after")
    return before, after


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60, help="steps of the training")
    parser.add_argument("--samples", type=int, default=64, help="films per prompt before and after it")
    options = parser.parse_args()
    with warnings.catch_warnings():
        # Of the name of gradient_checkpointing in newer versions of transformers.
        warnings.simplefilter("ignore", FutureWarning)
        train(options.steps, options.samples)
