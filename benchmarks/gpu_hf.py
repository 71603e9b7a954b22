"""The Retriever on one GPU: a random Qwen3-1.7B in bfloat16, 1,000-token prompts, 3 x 8,192 codes, 256 beams.

The catalog has 1.5M items. The script first checks in float32 that the tree of beams equals plain decoding, and that
CUDA graphs equal searches without a graph, with rules and versions, too. Then it times whole searches, prompt included,
with and without the constraint. The difference is the time that the constraint adds, also as a share of inference (the
paper: 0.25 %). Then come searches as a user calls them, the same with fused kernels in the model, `generate` of
transformers, and searches with `compile=True`.
    python benchmarks/gpu_hf.py              on one NVIDIA GPU
    python benchmarks/gpu_hf.py --dry-run    a tiny model on the CPU, to test the script without measuring
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if "--dry-run" in sys.argv:
    # Triton reads this variable when it is imported, which gpu_fused does.
    os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch
from gpu_fused import fused_kernels
from gpu_run import Row, Run, captured, options_of, replayed, run_of
from gpu_step import unconstrained
from transformers import Qwen3Config, Qwen3ForCausalLM

import hedgerow as hr
from hedgerow.hf import Retriever, Shapes, compiled, probe
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
        model: Any = Qwen3ForCausalLM(config)
        return model.to(dtype).eval()


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
    """Check that captured searches give the scores of eager ones, also after graphs of other sizes, and with rules."""
    model, index = model_of(run, torch.float32, small=True), index_of(20_000)
    eager, graphs = (Retriever(model, index, tokens_of(), cuda_graphs=on and not run.dry) for on in (False, True))
    ids = index.item_ids.to_numpy()
    third, few = index.constraint(ids=ids[::3]), index.constraint(ids=ids[:5])
    rules: list[dict[str, Any]] = [
        {},
        {"constraints": [third, None, few]},
        {"constraints": [few, third, third], "exclude": [ids[:40], None, ids[::2]]},
        {"candidates": [ids[:50], None, ids[-3:]]},
    ]
    for length in (100,) if run.dry else (100, 200, 90, 127):
        for given in rules:
            assert_same_answers(graphs, eager, prompts_of(3, length), **given)


def check_versions(run: Run) -> None:
    """Check that versions of a live index share the graphs of a retriever, and that each answers with its items."""
    model, index = model_of(run, torch.float32, small=True), index_of(20_000)
    with tempfile.TemporaryDirectory() as folder:
        live = hr.LiveIndex.create(Path(folder) / "items.live", index, headroom=1.5)
        retriever = Retriever(model, live, tokens_of(), cuda_graphs=not run.dry)
        retriever.warm_up(Shapes(beam_widths=(8,), batch_size=2, prompt_length=64))
        graphs = retriever._searcher.graphs
        before = None if graphs is None else graphs.captures
        for _ in range(3):
            best = retriever.retrieve(prompts_of(2, 50), beam_width=8, k=3)
            version = live.remove([results.item_ids[0] for results in best])
            retriever.refresh(version)
            eager = Retriever(model, version, tokens_of())
            assert_same_answers(retriever, eager, prompts_of(2, 50), beam_width=8)
        assert graphs is None or graphs.captures == before, "a version captured graphs"


def check_fused(run: Run) -> None:
    """Check that fused kernels give the scores of the model's own operations."""
    model, index = model_of(run, torch.float32, small=True), index_of(20_000)
    retriever, prompts = Retriever(model, index, tokens_of()), prompts_of(2, 10)
    expected = retriever.retrieve(prompts, k=None)
    with fused_kernels():
        found = retriever.retrieve(prompts, k=None)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=2e-3)


def check_compiled(run: Run) -> None:
    """Check that compiled layers, in a graph, give the scores of the model's own operations."""
    model, index = model_of(run, torch.float32, small=True), index_of(20_000)
    eager = Retriever(model, index, tokens_of())
    retriever = Retriever(model, index, tokens_of(), compile=True, cuda_graphs=not run.dry)
    assert_same_answers(retriever, eager, prompts_of(2, 10))
    assert_same_answers(retriever, eager, prompts_of(1, 70))


def assert_same_answers(retriever: Retriever, expected: Retriever, prompts: list[list[int]], **options: Any) -> None:
    """Check that two retrievers give the same scores."""
    found, wanted = (each.retrieve(prompts, k=None, **options) for each in (retriever, expected))
    for ours, theirs in zip(found, wanted, strict=True):
        assert len(ours) == len(theirs), (len(ours), len(theirs))
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=2e-3)


def milliseconds(run: Run, search: Search) -> np.ndarray:
    """Times of whole searches in milliseconds, replayed from a CUDA graph."""
    if run.dry:
        return wall_milliseconds(run, search)
    graph, _ = captured(search)
    return replayed(graph, REPLAYS) / 1e3


def wall_milliseconds(run: Run, search: Search, runs: int = 20) -> np.ndarray:
    """Times of searches in milliseconds by the clock of the host; the first one, which captures, does not count."""
    times = []
    for _ in range(1 if run.dry else runs + 1):
        started = time.perf_counter()
        search()
        if run.device.type == "cuda":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - started) * 1e3)
    return np.asarray(times if run.dry else times[1:])


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
    """Time batches of 1 and 8 requests, with and without the constraint, and `generate`."""
    length, beams, items = (40, 8, 2_000) if run.dry else (1_000, 256, 1_500_000)
    # With random weights, 28 layers in bfloat16 may differ by more than the trial allows. In float32, the ways of
    # computing beams were compared above.
    probe.LOOSE = 0.5  # pyright: ignore[reportPrivateImportUsage]
    model, index = model_of(run, torch.bfloat16), index_of(items)
    time_searches(run, model, index, length, beams)
    # The interpreter takes minutes for these.
    if not run.dry:
        with fused_kernels():
            time_searches(run, model, index, length, beams, ", fused")
    # It copies the keys and values of the prompt for every beam, 29 GB, so it comes last, without the graphs.
    torch.cuda.empty_cache()
    name = "generate, a dict of prefixes"
    row = {"batch": 1, "beam_width": beams, "prompt": length, "items": items, "method": name}
    run.attempt(name, lambda: add_row(run, row, generate_times(run, model, index, length, beams)))
    # Compiling takes most of a minute.
    torch.cuda.empty_cache()
    compile_ = lambda: time_searches(run, model, index, length, beams, ", compiled", compile=True)  # noqa: E731
    run.attempt("compiled layers", compile_)


def time_searches(
    run: Run, model: Any, index: hr.TrieIndex, length: int, beams: int, suffix: str = "", **options: Any
) -> None:
    """Time whole searches in graphs, with and without the constraint, and searches as a user calls them."""
    retriever = Retriever(model, index, tokens_of(), decoding="tree", cuda_graphs=not run.dry, **options)
    rules = {"constraints": index.constraint(ids=index.item_ids.to_numpy()[::3])}
    for batch in (1, 8):
        prompts = prompts_of(batch, length)
        shape = {"batch": batch, "beam_width": beams, "prompt": length, "items": index.num_items}
        with torch.inference_mode():
            found = {name: milliseconds(run, search) for name, search in searches(retriever, prompts, beams).items()}
        for name, times in found.items():
            added = float(np.median(found["hedgerow"]) - np.median(found["unconstrained"]))
            share = {"added_ms": added, "added_share_of_inference": added / float(np.median(found["unconstrained"]))}
            add_row(run, shape | {"method": name + suffix}, times, share)
        for name, given in {"retrieve": {}, "retrieve, a set": rules}.items():
            search = lambda p=prompts, g=given: retriever.retrieve(p, beam_width=beams, k=10, **g)  # noqa: E731
            row = shape | {"method": name + suffix}
            run.attempt(row["method"], lambda r=row, f=search: add_row(run, r, wall_milliseconds(run, f)))


def add_row(run: Run, row: Row, times: np.ndarray, further: Row | None = None) -> None:
    """Record a measurement."""
    quantiles = np.percentile(times, (50, 10, 90)).tolist()
    measured = dict(zip(("median_ms", "p10_ms", "p90_ms"), quantiles, strict=True))
    run.add(row | measured | (further or {"added_ms": "", "added_share_of_inference": ""}))
    print(f"  batch {row['batch']}  {row['method']:36} {quantiles[0]:9.2f} ms", flush=True)


@torch.inference_mode()
def generate_times(run: Run, model: Any, index: hr.TrieIndex, length: int, beams: int) -> np.ndarray:
    """Times of the same search by transformers in milliseconds."""
    allowed = allowed_tokens(index, tokens_of())
    ids = torch.tensor(prompts_of(1, length), device=run.device)

    def search() -> Any:
        return model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            num_beams=beams,
            num_return_sequences=beams,
            max_new_tokens=LEVELS,
            do_sample=False,
            length_penalty=0.0,
            prefix_allowed_tokens_fn=lambda _, row: allowed[tuple(row[length:].tolist())],
        )

    return wall_milliseconds(run, search, 2)


def allowed_tokens(index: hr.TrieIndex, tokens: hr.TokenMap) -> dict[tuple[int, ...], list[int]]:
    """The tokens that may follow each prefix of tokens."""
    following: dict[tuple[int, ...], set[int]] = {}
    for row in tokens.encode(index.sids()).tolist():
        for level, token in enumerate(row):
            following.setdefault(tuple(row[:level]), set()).add(token)
    return {prefix: sorted(found) for prefix, found in following.items()}


def main() -> int:
    """Run all checks and timings. Returns the exit code: 1 if a check fails, 2 if there is no GPU."""
    options = options_of(__doc__)
    run = run_of(options, "retriever")
    run.check("the tree of beams equals plain decoding", lambda: check_tree(run))
    run.check("a CUDA graph equals the search without a graph", lambda: check_graph(run))
    run.check("versions share CUDA graphs", lambda: check_versions(run))
    run.check("fused kernels equal the model's operations", lambda: check_fused(run))
    if run.dry:
        # The layers are traced. Generating and compiling code takes minutes.
        compiled.BACKEND = "aot_eager"
    run.check("compiled layers equal the model's operations", lambda: check_compiled(run))
    run.check("runs: the size of Qwen3-1.7B", lambda: time_all(run))
    return run.finish(options.out)


if __name__ == "__main__":
    sys.exit(main())
