"""Runs a tiny model inside vLLM and in a Retriever, in a process of its own, and prints as JSON how the two differ.

One engine a process: vLLM keeps global state.
"""

import json
import os
import sys
from pathlib import Path

from vllm_engine import ENVIRONMENT, SIZES, new_catalog, save_model

COUNT = 24
# Scores of the two programs differ by up to this.
ROUNDING = 1e-4


def compare(family: str, folder: Path, dtype: str) -> dict:
    import numpy as np

    import hedgerow as hr

    save_model(family, folder / "model")
    hr.build_index(new_catalog()).save(folder / "items.hedgerow")
    os.environ |= ENVIRONMENT | {"HEDGEROW_INDEX": str(folder / "items.hedgerow"), "HEDGEROW_NORMALIZE": "vocab"}
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from vllm import LLM  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

    from hedgerow.hf.loading import load_retriever
    from hedgerow.vllm.remote import offline_retriever

    # Blocks of 32 tokens, so that prompts of 60 can share one; and less room than prompts, so that they are cut.
    options = {"block_size": 32, "max_model_len": 96, "max_num_seqs": 16, "max_num_batched_tokens": 100}
    llm = LLM(str(folder / "model"), runner="pooling", dtype=dtype, enforce_eager=True, **options)
    inside, cached = offline_retriever(llm), []
    encode = llm.encode

    def counted(*given, **named):
        found = encode(*given, **named)
        cached.append(sum(output.num_cached_tokens or 0 for output in found))
        return found

    llm.encode = counted
    index = inside.index
    outside = load_retriever(folder / "model", index, dtype=dtype, normalize="vocab", decoding="tree")
    rng = np.random.default_rng(3)
    shared = rng.integers(0, SIZES["words"], 60).tolist()
    # Many begin alike, so that later ones find the blocks of earlier ones in the prefix cache.
    prompts = [[*shared[: 33 + row], *rng.integers(0, SIZES["words"], 1 + 5 * (row % 4)).tolist()] for row in range(12)]
    prompts += [shared] * 2 + [[7], shared[:1]]
    number = index.attributes["number"].to_numpy()
    sets = [None, index.constraint(number < 40, order="index"), index.constraint(number % 3 == 0, order="index")]
    rules = {
        "constraints": [sets[row % 3] for row in range(len(prompts))],
        "exclude": [index.item_ids[row : row + 30].to_pylist() if row % 2 else None for row in range(len(prompts))],
    }
    some = [index.item_ids[row::17].to_pylist() if row % 4 == 0 else None for row in range(len(prompts))]
    facts = {}
    cases = {"plain": {}, "rules": rules, "again": rules, "candidates": rules | {"candidates": some}}
    for name, given in cases.items():
        answers = [each.retrieve(prompts, beam_width=COUNT, k=None, **given) for each in (inside, outside)]
        facts[name] = _summary([_difference(*pair) for pair in zip(*answers, strict=True)])
    facts["cached"] = cached
    facts["head"] = llm.apply_model(lambda model: model.pooler.search._model.head_use)[0]
    return facts


def _difference(inside, outside) -> dict:
    """How the results of one prompt differ."""
    mine, others = (
        dict(zip(zip(found.item_ids, map(tuple, found.sids.tolist()), strict=True), found.scores.tolist(), strict=True))
        for found in (inside, outside)
    )
    both = mine.keys() & others.keys()
    worst = max((abs(mine[key] - others[key]) for key in both), default=0.0)
    # Of two SIDs whose scores differ by less than the rounding of two programs, either may be the last beam.
    last = min(others.values(), default=0.0)
    ties = [key for key in mine.keys() - both if len(mine) == len(others) and abs(mine[key] - last) < ROUNDING]
    return {"found": len(mine), "wanted": len(others), "same": len(both) + len(ties), "worst": worst}


def _summary(differences: list[dict]) -> dict:
    sums = {name: sum(each[name] for each in differences) for name in ("found", "wanted", "same")}
    return sums | {"worst": max(each["worst"] for each in differences)}


if __name__ == "__main__":
    found = compare(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
    print("RESULT", json.dumps(found))
