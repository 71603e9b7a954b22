"""The processor of SGLang, on SGLang's interface: requests with the tokens of their prompts and outputs."""

import logging
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("duckdb")

from vllm_engine import RULES, SIZES, new_catalog, save_model

import hedgerow as hr
from hedgerow.vllm import sglang

LEVELS = SIZES["levels"]


@pytest.fixture(params=["sids", "text"])
def served(request, tmp_path, monkeypatch):
    delimiters = {"begin": [200], "end": [201]} if request.param == "text" else {}
    tokens = save_model("qwen3", tmp_path / "model", **delimiters)
    index = hr.build_index(new_catalog())
    index.save(tmp_path / "items.hedgerow")
    (tmp_path / "rules.toml").write_text(RULES)
    for name, path in {"INDEX": "items.hedgerow", "RULES": "rules.toml", "MODEL": "model"}.items():
        monkeypatch.setenv(f"HEDGEROW_{name}", str(tmp_path / path))
    sglang._writing.cache_clear()
    return SimpleNamespace(index=index, tokens=tokens)


def written(requests, steps):
    """What a model with random logits writes, step by step, as SGLang would."""
    generator, processor = torch.Generator().manual_seed(0), sglang.CatalogLogitProcessor()
    for _ in range(steps):
        logits = torch.randn(len(requests), 256, generator=generator)
        probabilities = processor(logits, [params for _, params in requests]).softmax(-1)
        drawn = torch.multinomial(probabilities, 1, generator=generator)[:, 0].tolist()
        for (request, _), token in zip(requests, drawn, strict=True):
            request.output_ids.append(token)
    return [request.output_ids for request, _ in requests]


def asking(prompt, given):
    request = SimpleNamespace(origin_input_ids=prompt, output_ids=[])
    # SimpleNamespace has no hash; SGLang's requests have that of an object.
    request = type("Req", (), vars(request))()
    return request, None if given is None else {"hedgerow": given, "__req__": request}


def rows_of(served, ids):
    codes = served.tokens.decode(torch.tensor([ids]).numpy())
    leaf = int(served.index.find(codes)[0]) if (codes >= 0).all() else -1
    return [] if leaf < 0 else list(range(*(int(part[0]) for part in served.index.rows_of([leaf]))))


def test_requests_write_sids_of_their_sets(served):
    begin = list(served.tokens.begin)
    asked = [{}, {"sets": ["low"]}, {"sets": ["low", "third"]}, None] * 4
    requests = [asking([3, 4 + row, *begin], given) for row, given in enumerate(asked)]
    number = served.index.attributes["number"].to_numpy()
    for given, ids in zip(asked, written(requests, LEVELS + len(served.tokens.end)), strict=True):
        rows = rows_of(served, ids[:LEVELS])
        if given is None:
            assert not rows
            continue
        assert rows
        assert ids[LEVELS:] == list(served.tokens.end)
        low, third = (number[rows] < 40), (number[rows] % 3 == 0)
        assert "low" not in given.get("sets", ()) or low.any()
        assert "third" not in given.get("sets", ()) or (low & third).any()


def test_invalid_rules_end_the_text_and_are_logged(served, caplog):
    begin = list(served.tokens.begin)
    with caplog.at_level(logging.ERROR):
        bad = [{"sets": ["nope"]}, "low", {"sets": ["none"]}, {"sets": 3}]
        requests = [asking([3, *begin], given) for given in bad]
        assert written(requests, 1) == [[254]] * len(bad)
    assert len(caplog.records) == 3


def test_rows_without_our_parameters_are_left_alone(served):  # noqa: ARG001
    logits = torch.randn(2, 256)
    processor = sglang.CatalogLogitProcessor()
    assert torch.equal(processor(logits.clone(), [None, {"other": 1}]), logits)
    assert torch.equal(processor(logits.clone(), None), logits)
