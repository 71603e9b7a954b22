"""The Retriever on one GPU: a random Qwen3-1.7B in bfloat16, 1,000-token prompts, 3 x 8,192 codes, 256 beams.

The catalog has 1.5M items. The script first checks in float32 that the tree of beams equals plain decoding, and that
a CUDA graph equals the search without a graph. Then it times whole searches, prompt included, with and without the
constraint. The difference is the time that the constraint adds, also as a share of inference (the paper: 0.25 %).
    python benchmarks/gpu_hf.py              on one NVIDIA GPU
    python benchmarks/gpu_hf.py --dry-run    a tiny model on the CPU, to test the script without measuring
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_checks import Row, Run, captured
from gpu_step import RESULTS, stamp_of, unconstrained, write
from transformers import Qwen3Config, Qwen3ForCausalLM

import hedgerow as hr
from hedgerow.hf import Retriever
from hedgerow.hf.prompts import padded
from hedgerow.hf.tree import TreeDecoder

VOCABULARY, LEVELS, CODES = 151_669, 3, 8_192
REPLAYS = 30
Search = Callable[[], Any]


def model_of(run: Run, dtype: torch.dtype, *, small: bool = False) -> Qwen3ForCausalLM:
    """Create a model with random weights, of the size of Qwen3-1.7B or small."""
    sizes: dict[str, Any] = {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28}
    sizes |= {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}
    if small or run.dry:
        sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
        sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    config = Qwen3Config(
        vocab_size=VOCABULARY + LEVELS * CODES,
        max_position_embeddings=4096,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
        **sizes,
    )
    torch.manual_seed(0)
    with torch.device(run.device):
        return Qwen3ForCausalLM(config).to(dtype).eval()


def index_of(items: int) -> hr.TrieIndex:
    """Build an index of uniformly random SIDs."""
    sids = np.random.default_rng(0).integers(0, CODES, (items, LEVELS))
    return hr.build_index(hr.Catalog(sids, codebook_sizes=CODES))


def tokens_of() -> hr.TokenMap:
    """The layout of OneRec: the codes follow the vocabulary of Qwen3."""
    return hr.TokenMap.from_offsets([VOCABULARY + level * CODES for level in range(LEVELS)], CODES)


def prompts_of(batch: int, length: int) -> list[list[int]]:
    """Random prompts."""
    return np.random.default_rng(1).integers(1, VOCABULARY, (batch, length)).tolist()


def check_tree(run: Run) -> None:
    """Check that the tree gives the scores of plain decoding."""
    model, index = model_of(run, torch.float32, small=True), index_of(20_000)
    prompts = [prompt[: 20 + 30 * row] for row, prompt in enumerate(prompts_of(3, 100))]
    tree, plain = (Retriever(model, index, tokens_of(), decoding=decoding) for decoding in ("tree", "plain"))
    for ours, theirs in zip(tree.retrieve(prompts, k=None), plain.retrieve(prompts, k=None), strict=True):
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=2e-3)


def check_graph(run: Run) -> None:
    """Check that a captured search gives the scores of an eager search, also for other prompts than captured."""
    model, index = model_of(run, torch.float32, small=True), index_of(20_000)
    eager, graphs = (Retriever(model, index, tokens_of(), cuda_graphs=on) for on in (False, True))
    for length in (100, 90, 127):
        prompts = prompts_of(3, length)
        for ours, theirs in zip(graphs.retrieve(prompts, k=None), eager.retrieve(prompts, k=None), strict=True):
            np.testing.assert_allclose(ours.scores, theirs.scores, atol=2e-3)


def milliseconds(run: Run, search: Search) -> np.ndarray:
    """Times of whole searches in milliseconds, replayed from a CUDA graph."""
    if run.dry:
        started = time.perf_counter()
        search()
        return np.asarray([time.perf_counter() - started]) * 1e3
    graph, _ = captured(search)
    times = []
    for _ in range(REPLAYS):
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        graph.replay()
        after.record()
        torch.cuda.synchronize()
        times.append(before.elapsed_time(after))
    return np.asarray(times)


def searches(retriever: Retriever, prompts: list[list[int]], beam_width: int) -> dict[str, Search]:
    """The search of the retriever, and the same search without a constraint."""
    search = retriever._searcher.search
    masking = search.masking
    assert masking is not None
    # A graph cannot capture the copy of the prompts to the device, so the decoder is created from copied prompts.
    ids, lengths = padded(prompts, search.model.device)

    def decoder() -> TreeDecoder:
        return TreeDecoder(search.model, masking, ids, lengths, beam_width)

    def free() -> hr.Beams:
        features_of, beams = decoder(), hr.init_beams(retriever.device_index, len(prompts))
        for level in range(LEVELS):
            beams = unconstrained(beams, search.logits_of(features_of(beams), level), beam_width)
        return beams

    return {
        "hedgerow": lambda: search.run(decoder(), len(prompts), beam_width, None).history[-1],
        "unconstrained": free,
    }


def time_all(run: Run) -> None:
    """Time batches of 1 and 8 requests, with and without the constraint."""
    length, beams, items = (40, 8, 2_000) if run.dry else (1_000, 256, 1_500_000)
    retriever = Retriever(model_of(run, torch.bfloat16), index_of(items), tokens_of(), decoding="tree")
    for batch in (1, 8):
        row_of: dict[str, Row] = {}
        with torch.inference_mode():
            for name, search in searches(retriever, prompts_of(batch, length), beams).items():
                samples = milliseconds(run, search)
                shape = {"batch": batch, "beam_width": beams, "prompt": length, "items": items, "method": name}
                quantiles = np.percentile(samples, (50, 10, 90)).tolist()
                row_of[name] = shape | dict(zip(("median_ms", "p10_ms", "p90_ms"), quantiles, strict=True))
                print(f"  batch {batch}  {name:16} {quantiles[0]:8.2f} ms", flush=True)
        added = row_of["hedgerow"]["median_ms"] - row_of["unconstrained"]["median_ms"]
        for row in row_of.values():
            row |= {"added_ms": added, "added_share_of_inference": added / row_of["unconstrained"]["median_ms"]}
        run.rows += row_of.values()


def main() -> int:
    """Run all checks and timings. Returns the exit code: 1 if a check fails, 2 if there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="use a tiny model on the CPU")
    parser.add_argument(
        "--out", type=Path, help=f"folder of the results (default: {RESULTS}; a new folder for a dry run)"
    )
    options = parser.parse_args()
    if not options.dry_run and not torch.cuda.is_available():
        print("There is no CUDA device. Use --dry-run to test the script without one.", file=sys.stderr)
        return 2
    run = Run(torch.device("cpu" if options.dry_run else "cuda:0"), options.dry_run, float("inf"))
    run.check("the tree of beams equals plain decoding", lambda: check_tree(run))
    if not run.dry:
        run.check("a CUDA graph equals the search without a graph", lambda: check_graph(run))
    run.check("runs: the size of Qwen3-1.7B", lambda: time_all(run))
    out = options.out or (Path(tempfile.mkdtemp()) if run.dry else RESULTS)
    checks = [{"check": name, "holds": holds, "why": why} for name, holds, why in run.checks]
    write(out / "retriever.csv", run.rows, stamp_of(run))
    write(out / "retriever-checks.csv", checks, stamp_of(run))
    print(f"results are in {out}")
    return 0 if all(holds for _, holds, _ in run.checks) else 1


if __name__ == "__main__":
    sys.exit(main())
