"""Compare the Retriever with `generate(num_beams=..., prefix_allowed_tokens_fn=...)`, and their logits processors.

The model is a Qwen3, and for a part of the rows a T5, whose encoder reads the prompt.

    python benchmarks/hf_generate.py            on a CPU: 512-token prompts, 4 requests, 50 beams, 4 levels of 256 codes
    python benchmarks/hf_generate.py --quick    a small model and short prompts, under a minute

The script first checks that both find the same SIDs, with scores within 1e-4. Then it measures the times, and the peak
memory of each in a separate process. Both run the same model with random weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from transformers import (
    LogitsProcessorList,
    PrefixConstrainedLogitsProcessor,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

import hedgerow as hr
from hedgerow.bench.machine import conditions, memory_bytes, reset_peak, set_threads
from hedgerow.bench.records import Report, Row
from hedgerow.bench.tables import console_for_tables, show_rows
from hedgerow.bench.timing import Budget, measure
from hedgerow.hf import CatalogLogitsProcessor, Retriever, generate

RESULTS = Path(__file__).parent / "results"
TEXT = 8_000
TOLERANCE = 1e-4
PARTS = {"qwen3": "search", "t5": "search with T5"}
HEADINGS = {
    "what": "what",
    "median_ms": "median ms",
    "p10_ms": "p10",
    "p90_ms": "p90",
    "runs": "runs",
    "peak_mb": "peak MB beyond the model",
    "faster": "times faster",
}


@dataclass(frozen=True)
class Setting:
    """The sizes of a comparison."""

    requests: int = 4
    prompt: int = 512
    beams: int = 50
    levels: int = 4
    codes: int = 256
    items: int = 100_000
    hidden: int = 256
    layers: int = 4


FULL = Setting()
QUICK = Setting(prompt=64, beams=20, items=10_000, hidden=64, layers=2)


@dataclass(frozen=True)
class Problem:
    """A model with random weights, a catalog with random SIDs, and prompts.

    `written` is the number of tokens before a SID in the sequence that the model writes.
    """

    setting: Setting
    written: int
    model: Any
    index: hr.TrieIndex
    tokens: hr.TokenMap
    prompts: torch.Tensor


def qwen3(setting: Setting, size: int) -> Any:
    config = Qwen3Config(
        vocab_size=size,
        hidden_size=setting.hidden,
        intermediate_size=3 * setting.hidden,
        num_hidden_layers=setting.layers,
        num_attention_heads=setting.hidden // 32,
        num_key_value_heads=setting.hidden // 64,
        head_dim=32,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    return Qwen3ForCausalLM(config).eval()


def t5(setting: Setting, size: int) -> Any:
    config = T5Config(
        vocab_size=size,
        d_model=setting.hidden,
        d_kv=32,
        d_ff=3 * setting.hidden,
        num_layers=setting.layers,
        num_heads=setting.hidden // 32,
        decoder_start_token_id=0,  # pyright: ignore[reportCallIssue]
        pad_token_id=0,
        eos_token_id=None,
    )
    return T5ForConditionalGeneration(config).eval()


def problem_of(setting: Setting, model_of: Callable[[Setting, int], Any] = qwen3) -> Problem:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = model_of(setting, TEXT + setting.levels * setting.codes)
    sids = rng.integers(0, setting.codes, (setting.items, setting.levels))
    index = hr.build_index(hr.Catalog(sids, codebook_sizes=setting.codes))
    tokens = hr.TokenMap.from_offsets([TEXT + level * setting.codes for level in range(setting.levels)], setting.codes)
    prompts = torch.tensor(rng.integers(1, TEXT, (setting.requests, setting.prompt)))
    return Problem(setting, 1 if model_of is t5 else setting.prompt, model, index, tokens, prompts)


def allowed_function(problem: Problem) -> Callable[[int, torch.Tensor], list[int]]:
    """The function of a user for `prefix_allowed_tokens_fn`, with a dict from prefixes to tokens."""
    allowed: dict[tuple[int, ...], set[int]] = {}
    for row in problem.tokens.encode(problem.index.sids()).tolist():
        for level in range(len(row)):
            allowed.setdefault(tuple(row[:level]), set()).add(row[level])
    lists = {prefix: sorted(tokens) for prefix, tokens in allowed.items()}
    start = problem.written
    return lambda _, ids: lists[tuple(ids[start:].tolist())]


def generated(problem: Problem, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """SIDs [B, M, L] and scores [B, M] of `generate`, best first."""
    setting = problem.setting
    output = problem.model.generate(
        problem.prompts,
        attention_mask=torch.ones_like(problem.prompts),
        num_beams=setting.beams,
        num_return_sequences=setting.beams,
        max_new_tokens=setting.levels,
        do_sample=False,
        length_penalty=0.0,
        return_dict_in_generate=True,
        **options,
    )
    codes = problem.tokens.decode(output.sequences[:, problem.written :].numpy())
    shape = setting.requests, setting.beams
    return codes.reshape(*shape, -1), output.sequences_scores.numpy().reshape(shape)


def by_function(problem: Problem, function: Any) -> tuple[np.ndarray, np.ndarray]:
    """As `generated`, with the function of a user."""
    return generated(problem, prefix_allowed_tokens_fn=function, output_scores=True)


def by_search(problem: Problem, retriever: Retriever) -> tuple[np.ndarray, np.ndarray]:
    """As `generated`, with the search of a Retriever as the decoding loop."""
    return generated(problem, custom_generate=generate, retriever=retriever)


@torch.inference_mode()
def encode(problem: Problem) -> None:
    """Run the encoder on the prompts, as every search has to."""
    problem.model.get_encoder()(problem.prompts, attention_mask=torch.ones_like(problem.prompts))


def check_answers(problem: Problem, retriever: Retriever, function: Any) -> float:
    """Compare the results and return the largest difference of scores. Exits if SIDs or scores differ."""
    worst = 0.0
    answers = retriever.retrieve(problem.prompts, beam_width=problem.setting.beams, k=None)
    retrieved = [(results.sids, results.scores) for results in answers]
    by_custom = zip(*by_search(problem, retriever), strict=True)
    expected = list(zip(*by_function(problem, function), strict=True))
    for found, (sids, scores) in [*zip(retrieved, expected, strict=True), *zip(by_custom, expected, strict=True)]:
        theirs = {tuple(sid): score for sid, score in zip(sids.tolist(), scores.tolist(), strict=True)}
        ours = {tuple(sid): score for sid, score in zip(found[0].tolist(), found[1].tolist(), strict=True)}
        differing = set(theirs) ^ set(ours)
        worst = max(worst, *(abs(theirs[sid] - ours[sid]) for sid in set(theirs) & set(ours)))
        if differing or worst > TOLERANCE:
            sys.exit(f"the results differ: {len(differing)} SIDs, scores by up to {worst:.1e}; nothing was timed.")
    return worst


def compare_searches(problem: Problem, budget: Budget, part: str) -> list[Row]:
    retriever = Retriever(problem.model, problem.index, problem.tokens, normalize="vocab")
    by_codes = Retriever(problem.model, problem.index, problem.tokens)
    function = allowed_function(problem)
    worst = check_answers(problem, retriever, function)
    options: dict[str, Any] = {"beam_width": problem.setting.beams, "k": None}
    floor = {"the encoder alone, the floor": lambda: encode(problem)} if problem.model.config.is_encoder_decoder else {}
    samples = measure(
        {
            "generate, prefix_allowed_tokens_fn": lambda: by_function(problem, function),
            "generate, custom_generate=hedgerow.hf.generate": lambda: by_search(problem, retriever),
            "Retriever, normalize='vocab' (the same scores)": lambda: retriever.retrieve(problem.prompts, **options),
            "Retriever, normalize='codes'": lambda: by_codes.retrieve(problem.prompts, **options),
            **floor,
        },
        budget,
    )
    return _rows(samples, part, {"worst_score_difference": worst})


def compare_processors(problem: Problem, budget: Budget) -> list[Row]:
    """Compare the processors: one call for all rows of a step at every level, with the inputs of `generate`."""
    setting, function = problem.setting, allowed_function(problem)
    rows = 2 * 70
    processor = CatalogLogitsProcessor(problem.index, problem.tokens, prompt_length=setting.prompt)
    theirs = LogitsProcessorList([PrefixConstrainedLogitsProcessor(function, num_beams=rows)])
    rng = np.random.default_rng(1)
    sids = problem.index.sids(rng.integers(0, problem.index.num_sids, rows))
    prompt = problem.prompts[:1].expand(rows, -1)
    steps = []
    for level in range(setting.levels):
        codes = torch.tensor(problem.tokens.encode(sids)[:, :level])
        scores = torch.randn(rows, problem.model.config.vocab_size).log_softmax(-1)
        steps.append((torch.cat([prompt, codes], dim=-1), scores))
    for ids, scores in steps:
        if not torch.equal(processor(ids, scores), theirs(ids, scores)):
            sys.exit("the processors differ; nothing was timed.")
    samples = measure(
        {
            "prefix_allowed_tokens_fn": lambda: [theirs(*step) for step in steps],
            "CatalogLogitsProcessor": lambda: [processor(*step) for step in steps],
            "an output of the scores' size filled, the floor": lambda: [
                torch.full_like(scores, float("-inf")) for _, scores in steps
            ],
        },
        budget,
    )
    return _rows(samples, f"processor, {rows} rows, all {setting.levels} levels", {})


def _rows(samples: Any, what: str, facts: Row) -> list[Row]:
    rows = [{"part": what, "what": name} | times.summary() | facts for name, times in samples.items()]
    for row in rows:
        row["faster"] = rows[0]["median_ms"] / row["median_ms"]
    return rows


def peak_megabytes(part: str, method: str, *, quick: bool) -> float:
    """Run one search in a separate process, and return its peak memory minus the memory before it, in MB."""
    command = [sys.executable, __file__, "--peak", f"{part}: {method}"] + ["--quick"] * quick
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(process.stdout.splitlines()[-1])


def run_for_peak(method: str, setting: Setting) -> None:
    problem = problem_of(setting, t5 if method.startswith(PARTS["t5"] + ":") else qwen3)
    function = allowed_function(problem)
    normalize: Any = "codes" if "codes" in method else "vocab"
    retriever = Retriever(problem.model, problem.index, problem.tokens, normalize=normalize)
    # A first, small search loads what is loaded on first use.
    sizes = dataclasses.replace(setting, prompt=8, requests=1)
    written = min(problem.written, sizes.prompt)
    small = dataclasses.replace(problem, prompts=problem.prompts[:1, :8], setting=sizes, written=written)
    for sized in (small, problem):
        before = memory_bytes()
        reset_peak()
        if "prefix_allowed_tokens_fn" in method:
            by_function(sized, allowed_function(small) if sized is small else function)
        elif "custom_generate" in method:
            by_search(sized, retriever)
        elif "encoder" in method:
            encode(sized)
        else:
            retriever.retrieve(sized.prompts, beam_width=setting.beams, k=None)
    print(json.dumps((memory_bytes(peak=True) - before) / 1e6))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="use a small model and short prompts")
    parser.add_argument("--threads", type=int, help="number of threads of PyTorch (default: all cores)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for CSV and JSON")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    setting = QUICK if options.quick else FULL
    if options.peak:
        run_for_peak(options.peak, setting)
        return
    set_threads(options.threads)
    started = time.perf_counter()
    problem = problem_of(setting)
    budget = Budget(repeats=20, warmup=1, seconds=5.0) if options.quick else Budget(repeats=20, warmup=1, seconds=60.0)
    rows = compare_searches(problem, budget, PARTS["qwen3"])
    rows += compare_searches(problem_of(setting, t5), budget, PARTS["t5"])
    for row in rows:
        row["peak_mb"] = peak_megabytes(row["part"], row["what"], quick=options.quick)
    rows += compare_processors(problem, budget)
    facts = {"backend": "torch", "device": "cpu", "quick": options.quick, "setting": vars(setting)}
    report = Report("hf-generate", conditions() | facts, [row | vars(setting) for row in rows])
    console: Console = console_for_tables()
    for part in dict.fromkeys(row["part"] for row in rows):
        show_rows(part, HEADINGS, [row for row in rows if row["part"] == part], console)
    worst = rows[0]["worst_score_difference"]
    print(f"scores differ by at most {worst:.1e}; total time {time.perf_counter() - started:.0f} s")
    for path in report.save(options.out):
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
