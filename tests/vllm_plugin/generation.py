"""Generates with a tiny model inside vLLM, in a process of its own, and prints as JSON what was written.

Three ways: SIDs alone (greedy and sampled, with sets), text around SIDs, and beams as requests, which is slow but uses
nothing of the pooler: the oracle of the beams inside the engine.
"""

import json
import os
import sys
from pathlib import Path

from vllm_engine import ENVIRONMENT, RULES, SIZES, new_catalog, save_model

WIDTH = 8


def prepared(folder: Path, *, within_text: bool):
    import hedgerow as hr

    delimiters = {"begin": [200], "end": [201]} if within_text else {}
    tokens = save_model("qwen3", folder / "model", **delimiters)
    index = hr.build_index(new_catalog())
    index.save(folder / "items.hedgerow")
    (folder / "rules.toml").write_text(RULES)
    os.environ |= ENVIRONMENT | {
        "HEDGEROW_INDEX": str(folder / "items.hedgerow"),
        "HEDGEROW_RULES": str(folder / "rules.toml"),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }
    from vllm import LLM  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

    options = {"max_model_len": 96, "max_num_seqs": 16, "logprobs_mode": "processed_logits", "max_logprobs": 64}
    llm = LLM(str(folder / "model"), runner="generate", dtype="float32", enforce_eager=True, **options)
    return llm, index, tokens


def prompts_of(count: int):
    import numpy as np

    rng = np.random.default_rng(5)
    return [rng.integers(0, SIZES["words"], 3 + 2 * row).tolist() for row in range(count)]


def written(llm, prompts, asked, **options):
    from vllm import SamplingParams  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

    params = [
        SamplingParams(detokenize=False, extra_args=None if each is None else {"hedgerow": each}, **options)
        for each in asked
    ]
    found = llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
    return [list(each.outputs[0].token_ids) for each in found], found


def sids_alone(folder: Path) -> dict:
    llm, index, tokens = prepared(folder, within_text=False)
    prompts, facts = prompts_of(12), {}
    asked = [{}, {"sets": ["low"]}, {"sets": ["low", "third"]}, {"exclude": index.item_ids[:300].to_pylist()}] * 3
    levels = SIZES["levels"]
    for name, options in {"greedy": {"temperature": 0.0}, "sampled": {"temperature": 1.5, "seed": 3}}.items():
        facts[name], _ = written(llm, prompts, asked, max_tokens=2 * levels, ignore_eos=True, **options)
    facts["none"], _ = written(llm, prompts[:2], [{"sets": ["none"]}, {}], max_tokens=levels, temperature=0.0)
    facts["free"], _ = written(llm, prompts[:2], [None, {}], max_tokens=levels, temperature=0.0, ignore_eos=True)
    facts["prompts"], facts["beams"] = prompts, []
    for prompt in prompts[:3]:
        facts["beams"].append(beams_as_requests(llm, tokens, prompt))
    return facts


def beams_as_requests(llm, tokens, prompt) -> list:
    """The exact beams of a prompt: every beam of every level is a request of one token."""
    beams = [([], 0.0)]
    for level in range(SIZES["levels"]):
        prompts = [prompt + [int(tokens.token_ids[at][code]) for at, code in enumerate(codes)] for codes, _ in beams]
        asked = [{"written": level, "log_probs": True}] * len(beams)
        options = {"max_tokens": 1, "temperature": 0.0, "logprobs": SIZES["codes"], "ignore_eos": True}
        _, found = written(llm, prompts, asked, **options)
        codes_of = {int(token): code for code, token in enumerate(tokens.token_ids[level])}
        candidates = [
            ([*codes, codes_of[token]], score + float(each.logprob))
            for (codes, score), output in zip(beams, found, strict=True)
            for token, each in output.outputs[0].logprobs[0].items()
            if each.logprob > -1e30
        ]
        beams = sorted(candidates, key=lambda beam: -beam[1])[:WIDTH]
    return beams


def within_text(folder: Path) -> dict:
    llm, _, _ = prepared(folder, within_text=True)
    prompts = [[*prompt, 200] for prompt in prompts_of(8)]
    asked = [{}, {"sets": ["low"]}] * 4
    found, _ = written(llm, prompts, asked, max_tokens=40, temperature=1.3, seed=1, ignore_eos=True)
    return {"sampled": found}


if __name__ == "__main__":
    found = {"sids": sids_alone, "text": within_text}[sys.argv[1]](Path(sys.argv[2]))
    print("RESULT", json.dumps(found))
