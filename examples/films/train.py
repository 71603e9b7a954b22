"""Train the model of the demo, a Qwen3 of 4 million parameters, on a CPU: `model.safetensors` and `config.json`."""

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from paths import DATA, OUT, SEED, TOKENIZER
from prompts import Sampler, load_films
from rich.progress import track
from tokenizers import Tokenizer
from tokens import BEGIN, END, PAD, answer
from torch.nn import functional
from transformers import Qwen3Config, Qwen3ForCausalLM

STEPS, BATCH = 2400, 128
POOL = 16  # the number of batches that are sorted by length together, to reduce padding
PEAK_RATE, WARM_UP, DECAY = 2e-3, 100, 0.05
ANSWER = 6  # the number of tokens of an answer: begin, four codes, end


def build(tokenizer: Tokenizer) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.token_to_id(PAD),
        bos_token_id=tokenizer.token_to_id(BEGIN),
        eos_token_id=tokenizer.token_to_id(END),
    )
    return Qwen3ForCausalLM(config)


def batches(tokenizer: Tokenizer) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of token ids, padded on the right, and the positions before the tokens of the answers."""
    pad = tokenizer.token_to_id(PAD)
    pairs = iter(Sampler(load_films()))
    shuffle = random.Random(SEED)
    while True:
        texts = [prompt + answer(film["sid"]) for prompt, film in islice(pairs, POOL * BATCH)]
        rows = sorted((row.ids for row in tokenizer.encode_batch(texts)), key=len)
        for start in shuffle.sample(range(0, len(rows), BATCH), POOL):
            batch = rows[start : start + BATCH]
            longest = len(batch[-1])
            ids = torch.tensor([row + [pad] * (longest - len(row)) for row in batch])
            ends = torch.tensor([len(row) for row in batch])
            yield ids, ends[:, None] - 1 + torch.arange(-ANSWER, 0)


def answer_loss(model: Qwen3ForCausalLM, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the answers. Causal attention does not see the padding after them."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    rows = torch.arange(len(ids))[:, None]
    logits = model.lm_head(hidden[rows, positions])
    return functional.cross_entropy(logits.flatten(0, 1), ids[rows, positions + 1].flatten())


def rate(step: int, steps: int) -> float:
    """The learning rate factor: warm-up, then a cosine to zero."""
    return min((step + 1) / WARM_UP, 0.5 + 0.5 * math.cos(math.pi * step / steps))


def fit(model: Qwen3ForCausalLM, tokenizer: Tokenizer, steps: int) -> float:
    """Train the model in place, and return the mean loss of the last tenth of the steps."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(step, steps))
    losses = []
    model.train()
    for ids, positions in track(islice(batches(tokenizer), steps), "training", total=steps):
        loss = answer_loss(model, ids, positions)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    return sum(losses[-max(1, steps // 10) :]) / max(1, steps // 10)


def save(model: Qwen3ForCausalLM, folder: Path) -> None:
    """Write the weights in half precision and the configuration."""
    model.eval().half().save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    (folder / "model.safetensors").chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=DATA, help="folder for the weights and the configuration")
    args = parser.parse_args()
    torch.manual_seed(SEED)
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    model = build(tokenizer)
    start = time.perf_counter()
    loss = fit(model, tokenizer, args.steps)
    figures = {
        "parameters": model.num_parameters(),
        "steps": args.steps,
        "batch": BATCH,
        "seconds": round(time.perf_counter() - start),
        "loss": round(loss, 3),
    }
    save(model, args.out)
    (OUT / "training.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(figures)


if __name__ == "__main__":
    main()
