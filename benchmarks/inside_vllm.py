"""Measure retrieval inside vLLM: its beams and CPU seconds against `Retriever`, beams as requests and vLLM's own beams.

vLLM is in an environment of its own, which `make .venv-vllm/.installed` makes:

    OMP_NUM_THREADS=1 .venv-vllm/bin/python benchmarks/inside_vllm.py            about 5 minutes
    OMP_NUM_THREADS=1 .venv-vllm/bin/python benchmarks/inside_vllm.py --quick    about 2 minutes

A random Qwen3 (2 layers, hidden size 64, float32), 50,000 items of 4 codes, 8 prompts of 40 to 61 tokens, and different
sets. Prefix caching and chunked prefill are on; the prefix cache is emptied before each run. CPU seconds are those of
one process with one thread. The equality of beams is checked at `--equal` beams per prompt. Each engine has its own
process, because vLLM keeps global state.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
LEVELS, CODES, WORDS, ITEMS, REQUESTS = 4, 256, 1000, 50_000, 8
RULES = '[sets]\nfresh = "day >= 358"\nhalf = "day < 182"\nthird = "number % 3 = 0"\n'
# The sets of the prompts.
NAMES: list[str | None] = [None, "fresh", "half", None, "fresh", None, "third", "half"]
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HEDGEROW_NORMALIZE": "vocab",
}
HEADINGS = {"what": "what", "cpu_seconds": "CPU s", "ratio": "x Retriever", "requests": "requests", "valid": "valid"}


def make(folder: Path) -> None:
    """Write the model, its tokenizer and tokens, the index and the rules."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    import hedgerow as hr

    codes = [f"<{level}_{code}>" for level in range(LEVELS) for code in range(CODES)]
    names = [*(f"w{number}" for number in range(WORDS)), *codes, "<unk>", "</s>"]
    backend = Tokenizer(models.WordLevel({name: place for place, name in enumerate(names)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    end = len(names) - 1
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>").save_pretrained(folder / "model")
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    options = {"head_dim": 32, "max_position_embeddings": 512, "eos_token_id": end, "bos_token_id": None}
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(names), num_hidden_layers=2, **sizes, **options))
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.normal_(0, 0.25)
    model.save_pretrained(folder / "model")
    hr.TokenMap.from_offsets([WORDS + level * CODES for level in range(LEVELS)], CODES).save(folder / "model")
    rng = np.random.default_rng(0)
    first = np.minimum(rng.zipf(1.3, ITEMS) - 1, CODES - 1)[:, None]
    sids = np.concatenate([first, rng.integers(0, CODES, (ITEMS, LEVELS - 1))], axis=1)
    attributes = {"day": rng.integers(0, 365, ITEMS), "number": np.arange(ITEMS)}
    hr.build_index(hr.Catalog(sids, codebook_sizes=CODES, attributes=attributes)).save(folder / "items.hedgerow")
    (folder / "rules.toml").write_text(RULES)


def prompts_of() -> list[list[int]]:
    """The prompts, as token ids."""
    rng = np.random.default_rng(3)
    return [rng.integers(0, WORDS, 40 + 3 * row).tolist() for row in range(REQUESTS)]


def engine(folder: Path, **options: Any) -> Any:
    """An engine of vLLM in this process."""
    os.environ |= ENVIRONMENT
    os.environ |= {"HEDGEROW_INDEX": str(folder / "items.hedgerow"), "HEDGEROW_RULES": str(folder / "rules.toml")}
    from vllm import LLM  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

    fixed = {"dtype": "float32", "enforce_eager": True, "max_model_len": 128, "block_size": 32, "max_num_seqs": 256}
    return LLM(str(folder / "model"), disable_log_stats=True, **fixed, **options)


def cpu_seconds(llm: Any, work: Callable[[], Any], runs: int) -> tuple[float, Any]:
    """The least CPU seconds of some runs, each with an empty prefix cache, and the last result."""
    times, found = [], None
    for _ in range(runs):
        llm.reset_prefix_cache()
        started = time.process_time()
        found = work()
        times.append(time.process_time() - started)
    return min(times), found


def inside(folder: Path, beams: int, equal: int, runs: int) -> dict[str, Any]:
    """Searches inside vLLM, and in a Retriever of the same process."""
    llm = engine(folder, runner="pooling")
    import torch

    from hedgerow.hf.loading import load_retriever
    from hedgerow.serve.rules import read_rules, sets_of
    from hedgerow.vllm.remote import offline_retriever

    torch.set_num_threads(1)
    mine = offline_retriever(llm)
    other = load_retriever(folder / "model", mine.index, normalize="vocab")
    sets = sets_of(mine.index, read_rules(folder / "rules.toml"))
    prompts, rules = prompts_of(), [None if name is None else sets[name] for name in NAMES]

    def search(retriever: Any, width: int, constraints: Any) -> Any:
        return retriever.retrieve(prompts, beam_width=width, k=None, constraints=constraints)

    facts: dict[str, Any] = {"equality": {}}
    for name, constraints in {"no sets": None, "mixed sets": rules}.items():
        # Twice: the second time, the prompts are in the prefix cache.
        for _ in range(2):
            found, wanted = (search(each, equal, constraints) for each in (mine, other))
            facts["equality"][name] = differences(mine.index, found, wanted, constraints or [None] * REQUESTS)
        for what, retriever in {"Retriever": other, "inside vLLM": mine}.items():
            search(retriever, beams, constraints)
            facts[f"{what}, {name}"] = cpu_seconds(llm, partial(search, retriever, beams, constraints), runs)[0]
    return facts


def differences(index: Any, found: Any, wanted: Any, rules: Any) -> dict[str, Any]:
    """The beams of both, those that are equal, those that are valid, and the largest difference of scores."""
    total = same = valid = 0
    worst = 0.0
    for one, other, items in zip(found, wanted, rules, strict=True):
        mine, others = (dict(zip(map(tuple, r.sids.tolist()), r.scores.tolist(), strict=True)) for r in (one, other))
        both = mine.keys() & others.keys()
        total, same = total + max(len(mine), len(others)), same + len(both)
        allowed = index.contains(one.sids) & (True if items is None else items.mask[one.rows])
        known = set(map(tuple, one.sids[allowed].tolist()))
        valid += len(known)
        worst = max([worst, *(abs(mine[key] - others[key]) for key in both)])
    return {"beams": total, "same": same, "valid": valid, "worst": worst}


def requests(folder: Path, beams: int, runs: int) -> dict[str, Any]:
    """Beams as requests, which hedgerow's processor makes exact; and vLLM's own beam search."""
    llm = engine(folder, runner="generate", logprobs_mode="processed_logits", max_logprobs=2 * CODES)
    from vllm import SamplingParams  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]
    from vllm.sampling_params import BeamSearchParams  # pyright: ignore[reportMissingImports]

    import hedgerow as hr

    index, tokens = hr.load_index(folder / "items.hedgerow"), hr.TokenMap.load(folder / "model")
    prompts, sent = prompts_of(), 0
    level_of = [{int(token): code for code, token in enumerate(table)} for table in tokens.token_ids]

    def driven() -> list[list[tuple[list[int], float]]]:
        nonlocal sent
        sent, found = 0, [[([], 0.0)] for _ in prompts]
        for level in range(LEVELS):
            asked = [
                (row, codes, score, prompt + [int(tokens.token_ids[at][code]) for at, code in enumerate(codes)])
                for row, prompt in enumerate(prompts)
                for codes, score in found[row]
            ]
            options = {"max_tokens": 1, "temperature": 0.0, "logprobs": min(beams, CODES), "ignore_eos": True}
            rule = {"written": level, "log_probs": True}
            params = SamplingParams(detokenize=False, extra_args={"hedgerow": rule}, **options)
            outputs = llm.generate([{"prompt_token_ids": ids} for *_, ids in asked], params, use_tqdm=False)
            sent += len(asked)
            kept: list[list[tuple[list[int], float]]] = [[] for _ in prompts]
            for (row, codes, score, _), output in zip(asked, outputs, strict=True):
                for token, each in output.outputs[0].logprobs[0].items():
                    if each.logprob > -1e30:
                        kept[row].append(([*codes, level_of[level][token]], score + each.logprob))
            found = [sorted(each, key=lambda beam: -beam[1])[:beams] for each in kept]
        return found

    def own() -> Any:
        given = BeamSearchParams(beam_width=beams, max_tokens=LEVELS, ignore_eos=True)
        return llm.beam_search([{"prompt_token_ids": ids} for ids in prompts], given)

    seconds, found = cpu_seconds(llm, driven, runs)
    of_own, beams_of_own = cpu_seconds(llm, own, runs)
    sids = np.array([codes for each in found for codes, _ in each])
    written = [each.tokens[-LEVELS:] for output in beams_of_own for each in output.sequences]
    codes = tokens.decode(np.array(written))
    known = (codes >= 0).all(1)
    return {
        "beams as requests": seconds,
        "requests": sent,
        "requests valid": f"{int(index.contains(sids).sum())} of {len(sids)}",
        "vLLM's beam search": of_own,
        "own valid": f"{int(index.contains(codes[known]).sum())} of {len(codes)}",
    }


def rows_of(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the table."""
    base = facts["Retriever, no sets"]
    rows = []
    for name in ("no sets", "mixed sets"):
        for what in ("Retriever", "inside vLLM"):
            seconds = facts[f"{what}, {name}"]
            rows.append({"what": f"{what}, {name}", "cpu_seconds": seconds})
            rows[-1]["ratio"] = seconds / facts[f"Retriever, {name}"]
        equal = facts["equality"][name]
        rows[-1]["valid"] = (
            f"{equal['valid']} of {equal['beams']}; {equal['same']} equal, scores within {equal['worst']:.1e}"
        )
        rows[-1]["requests"] = REQUESTS
    for what, valid, count in (
        ("beams as requests", "requests valid", facts["requests"]),
        ("vLLM's beam search", "own valid", None),
    ):
        rows.append({"what": what, "cpu_seconds": facts[what], "ratio": facts[what] / base, "valid": facts[valid]})
        rows[-1] |= {} if count is None else {"requests": count}
    return rows


def main() -> None:
    """Run the measurements, print the table and save the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 beams, equality at 64, one run")
    parser.add_argument("--beams", type=int, default=50)
    parser.add_argument("--equal", type=int, default=256)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--part", choices=["inside", "requests"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    beams, equal, runs = (20, 64, 1) if arguments.quick else (arguments.beams, arguments.equal, arguments.runs)
    if arguments.part == "inside":
        print("FACTS", json.dumps(inside(arguments.folder, beams, equal, runs)))
        return
    if arguments.part == "requests":
        print("FACTS", json.dumps(requests(arguments.folder, beams, runs)))
        return
    from hedgerow.bench.machine import conditions
    from hedgerow.bench.records import Report
    from hedgerow.bench.tables import console_for_tables, show_footer, show_rows

    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        for part in ("inside", "requests"):
            print(f"running: {part}", file=sys.stderr)
            command = [sys.executable, __file__, *sys.argv[1:], "--part", part, "--folder", folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            line = next(line for line in done.stdout.splitlines() if line.startswith("FACTS "))
            facts |= json.loads(line.removeprefix("FACTS "))
    given = {"beams": beams, "equal": equal, "runs": runs, "quick": arguments.quick}
    report = Report("inside-vllm", conditions() | given, rows_of(facts))
    console = console_for_tables()
    show_rows(f"{REQUESTS} prompts, {beams} beams, {ITEMS:,} items", HEADINGS, report.rows, console)
    show_footer(report, console)
    for path in report.save(arguments.out):
        print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
