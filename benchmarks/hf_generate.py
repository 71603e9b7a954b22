"""Compare the Retriever with `generate(num_beams=..., prefix_allowed_tokens_fn=...)`, and their logits processors.

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
from transformers import LogitsProcessorList, PrefixConstrainedLogitsProcessor, Qwen3Config, Qwen3ForCausalLM

import hedgerow as hr
from hedgerow.bench.machine import conditions, memory_bytes, reset_peak, set_threads
from hedgerow.bench.records import Report, Row
from hedgerow.bench.tables import console_for_tables, show_rows
from hedgerow.bench.timing import Budget, measure
from hedgerow.hf import CatalogLogitsProcessor, Retriever

RESULTS = Path(__file__).parent / "results"
TEXT = 8_000
TOLERANCE = 1e-4
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
    """A model with random weights, a catalog with random SIDs, and prompts."""

    setting: Setting
    model: Any
    index: hr.TrieIndex
    tokens: hr.TokenMap
    prompts: torch.Tensor


def problem_of(setting: Setting) -> Problem:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    config = Qwen3Config(
        vocab_size=TEXT + setting.levels * setting.codes,
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
    model = Qwen3ForCausalLM(config).eval()
    sids = rng.integers(0, setting.codes, (setting.items, setting.levels))
    index = hr.build_index(hr.Catalog(sids, codebook_sizes=setting.codes))
    tokens = hr.TokenMap.from_offsets([TEXT + level * setting.codes for level in range(setting.levels)], setting.codes)
    prompts = torch.tensor(rng.integers(1, TEXT, (setting.requests, setting.prompt)))
    return Problem(setting, model, index, tokens, prompts)


def allowed_function(problem: Problem) -> Callable[[int, torch.Tensor], list[int]]:
    """The function of a user for `prefix_allowed_tokens_fn`, with a dict from prefixes to tokens."""
    allowed: dict[tuple[int, ...], set[int]] = {}
    for row in problem.tokens.encode(problem.index.sids()).tolist():
        for level in range(len(row)):
            allowed.setdefault(tuple(row[:level]), set()).add(row[level])
    lists = {prefix: sorted(tokens) for prefix, tokens in allowed.items()}
    start = problem.setting.prompt
    return lambda _, ids: lists[tuple(ids[start:].tolist())]


def generated(problem: Problem, function: Any) -> tuple[np.ndarray, np.ndarray]:
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
        prefix_allowed_tokens_fn=function,
        return_dict_in_generate=True,
        output_scores=True,
    )
    codes = problem.tokens.decode(output.sequences[:, setting.prompt :].numpy())
    shape = setting.requests, setting.beams
    return codes.reshape(*shape, -1), output.sequences_scores.numpy().reshape(shape)


def check_answers(problem: Problem, retriever: Retriever, function: Any) -> float:
    """Compare the results and return the largest difference of scores. Exits if SIDs or scores differ."""
    worst = 0.0
    answers = retriever.retrieve(problem.prompts, beam_width=problem.setting.beams, k=None)
    for results, sids, scores in zip(answers, *generated(problem, function), strict=True):
        theirs = {tuple(sid): score for sid, score in zip(sids.tolist(), scores.tolist(), strict=True)}
        ours = {tuple(sid): score for sid, score in zip(results.sids.tolist(), results.scores.tolist(), strict=True)}
        differing = set(theirs) ^ set(ours)
        worst = max(worst, *(abs(theirs[sid] - ours[sid]) for sid in set(theirs) & set(ours)))
        if differing or worst > TOLERANCE:
            sys.exit(f"the results differ: {len(differing)} SIDs, scores by up to {worst:.1e}; nothing was timed.")
    return worst


def compare_searches(problem: Problem, budget: Budget) -> list[Row]:
    retriever = Retriever(problem.model, problem.index, problem.tokens, normalize="vocab")
    by_codes = Retriever(problem.model, problem.index, problem.tokens)
    function = allowed_function(problem)
    worst = check_answers(problem, retriever, function)
    beams = problem.setting.beams
    samples = measure(
        {
            "generate, prefix_allowed_tokens_fn": lambda: generated(problem, function),
            "Retriever, normalize='vocab' (the same scores)": lambda: retriever.retrieve(
                problem.prompts, beam_width=beams, k=None
            ),
            "Retriever, normalize='codes'": lambda: by_codes.retrieve(problem.prompts, beam_width=beams, k=None),
        },
        budget,
    )
    return _rows(samples, "search", {"worst_score_difference": worst})


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


def peak_megabytes(method: str, *, quick: bool) -> float:
    """Run one search in a separate process, and return its peak memory minus the memory before it, in MB."""
    command = [sys.executable, __file__, "--peak", method] + ["--quick"] * quick
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(process.stdout.splitlines()[-1])


def run_for_peak(method: str, setting: Setting) -> None:
    problem = problem_of(setting)
    function = allowed_function(problem)
    normalize: Any = "codes" if "codes" in method else "vocab"
    retriever = Retriever(problem.model, problem.index, problem.tokens, normalize=normalize)
    # A first, small search loads what is loaded on first use.
    sizes = dataclasses.replace(setting, prompt=8, requests=1)
    small = dataclasses.replace(problem, prompts=problem.prompts[:1, :8], setting=sizes)
    for sized in (small, problem):
        before = memory_bytes()
        reset_peak()
        if method.startswith("generate"):
            generated(sized, allowed_function(small) if sized is small else function)
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
    rows = compare_searches(problem, budget)
    for row in rows:
        row["peak_mb"] = peak_megabytes(row["what"], quick=options.quick)
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
