"""Retriever.free_search, logits_fn and code_logits: the model's logits outside of `retrieve`."""

import numpy as np
import pytest

import hedgerow as hr

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from tiny import (
    CODES,
    OFFSETS,
    TOKENS,
    assert_same_scores,
    catalog,
    complete_index,
    exhaustive,
    index,
    last_logits,
    model_of,
    new_model,
    prompts_of,
)

from hedgerow.hf import Retriever

BEGIN = (191, 192)


@pytest.fixture(scope="module")
def retriever():
    return Retriever(model_of("llama"), index(), TOKENS)


def by_sid(sids, scores) -> dict[tuple, float]:
    return dict(zip(map(tuple, sids.tolist()), scores.tolist(), strict=True))


class TestFreeSearch:
    @pytest.mark.parametrize("normalize", ["codes", "vocab", "allowed"])
    @pytest.mark.parametrize("temperature", [1.0, 2.5])
    def test_equals_a_search_of_all_combinations(self, normalize, temperature):
        model, prompts = model_of("llama"), prompts_of(5, 9)
        retriever = Retriever(model, index(), TOKENS, normalize=normalize, temperature=temperature)
        sids, scores = retriever.free_search(prompts, beam_width=6)
        assert (sids.shape, sids.dtype, scores.dtype) == ((2, 6, 3), torch.int32, torch.float32)
        options = {"beam_width": 6, "normalize": normalize, "temperature": temperature}
        for row, prompt in enumerate(prompts):
            expected = exhaustive(model, prompt, complete_index(), TOKENS, **options)[-1][:6]
            assert_same_scores(by_sid(sids[row], scores[row]), dict(expected))
            assert (scores[row].diff() <= 0).all()
        assert not index().contains(sids.reshape(-1, 3).numpy()).all()

    def test_plain_decoding_and_batches(self, retriever):
        prompts = prompts_of(4, 17, 2, 30)
        sids, scores = retriever.free_search(prompts, beam_width=5)
        plain = Retriever(model_of("llama"), index(), TOKENS, decoding="plain")
        for other in (plain, Retriever(model_of("llama"), index(), TOKENS, max_tokens=1)):
            others = other.free_search(prompts, beam_width=5)
            assert torch.equal(others[0], sids)
            torch.testing.assert_close(others[1], scores, rtol=0, atol=1e-4)

    def test_fewer_combinations_than_beams(self):
        tokens = hr.TokenMap.from_offsets(OFFSETS[:2], 3)
        pairs = hr.build_index(hr.Catalog([[0, 1], [2, 2]], codebook_sizes=3))
        sids, scores = Retriever(model_of("llama"), pairs, tokens).free_search([5, 6], beam_width=12)
        assert len({tuple(sid) for sid in sids[0, :9].tolist()}) == 9
        assert torch.isfinite(scores[0]).tolist() == [True] * 9 + [False] * 3
        assert float(scores[0, :9].exp().sum()) == pytest.approx(1, abs=1e-5)

    def test_no_prompts(self, retriever):
        sids, scores = retriever.free_search([], beam_width=4)
        assert (sids.shape, scores.shape) == ((0, 4, 3), (0, 4))

    def test_ragged_sids(self):
        """The index has all SIDs of one or two codes, so `retrieve` gives the same as an unconstrained search."""
        sids = [[code] for code in range(4)] + [[first, second] for first in range(4) for second in range(3)]
        every = hr.build_index(hr.Catalog(sids, codebook_sizes=[4, 3], ragged=True))
        tokens = hr.TokenMap.from_offsets(OFFSETS[:2], [4, 3], end=7)
        for decoding in ("tree", "plain"):
            retriever = Retriever(model_of("llama"), every, tokens, decoding=decoding)
            free, scores = retriever.free_search([5, 6], beam_width=9)
            (results,) = retriever.retrieve([5, 6], beam_width=9, k=None)
            assert_same_scores(by_sid(free[0], scores[0]), by_sid(results.sids, results.scores))
            assert (free[0][:, 1] == -1).any()

    def test_results_can_be_changed_in_place(self, retriever):
        sids, scores = retriever.free_search([5, 6], beam_width=4)
        sids += 1
        scores += 1


class TestLogitsFn:
    @pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3"])
    @pytest.mark.parametrize("decoding", ["tree", "plain"])
    @pytest.mark.parametrize("normalize", ["codes", "allowed"])
    def test_beam_search_equals_retrieve(self, name, decoding, normalize):
        retriever = Retriever(model_of(name), index(), TOKENS, decoding=decoding, normalize=normalize, temperature=0.7)
        prompts, exclude = prompts_of(4, 11, 7), [["item 3"], None, ["item 5", "item 7"]]
        beams = hr.beam_search(
            retriever.device_index,
            retriever.logits_fn(prompts, beam_width=12),
            batch_size=3,
            beam_width=12,
            normalize=normalize,
            temperature=retriever.temperature,
            exclude=exclude,
        )
        expected = retriever.retrieve(prompts, beam_width=12, k=None, exclude=exclude)
        for results, others in zip(index().results(beams, exclude=exclude), expected, strict=True):
            assert results.item_ids == others.item_ids
            np.testing.assert_allclose(results.scores, others.scores, atol=1e-5)

    def test_logits_are_those_of_the_model(self, retriever):
        prompts = prompts_of(4, 11)
        logits_fn = retriever.logits_fn(prompts, beam_width=5)
        beams = hr.init_beams(retriever.device_index, 2)
        for level in range(3):
            logits = logits_fn(beams)
            assert (logits.shape, logits.dtype) == ((2, 5 if level else 1, CODES), torch.float32)
            for row, prompt in enumerate(prompts):
                for beam, codes in enumerate(beams.codes[row].tolist()):
                    ids = [*prompt, *(OFFSETS[number] + code for number, code in enumerate(codes))]
                    expected = last_logits(model_of("llama"), tuple(ids))[OFFSETS[level] : OFFSETS[level] + CODES]
                    torch.testing.assert_close(logits[row, beam].double(), expected, rtol=0, atol=1e-4)
            beams = hr.step(retriever.device_index, beams, logits, beam_width=5)

    def test_logits_can_be_changed_in_place(self, retriever):
        logits_fn, beams = retriever.logits_fn([5, 6], beam_width=5), hr.init_beams(retriever.device_index, 1)
        banned = int(retriever.trace([5, 6], beam_width=1)[0].codes[0, 0, 0])
        for level in range(3):
            logits = logits_fn(beams)
            if level == 0:
                logits[..., banned] = -torch.inf
            beams = hr.step(retriever.device_index, beams, logits, beam_width=5)
        assert banned not in beams.codes[0, :, 0].tolist()

    def test_can_be_used_again(self, retriever):
        logits_fn = retriever.logits_fn([5, 6], beam_width=5)
        first, second = (
            hr.beam_search(retriever.device_index, logits_fn, batch_size=1, beam_width=5) for _ in range(2)
        )
        assert torch.equal(first.codes, second.codes)
        assert torch.equal(first.scores, second.scores)

    def test_puts_the_model_into_evaluation_mode(self):
        model = new_model("gpt2")
        retriever = Retriever(model, index(), TOKENS)
        logits_fn = retriever.logits_fn([5, 6], beam_width=5)
        model.train()
        logits_fn(hr.init_beams(retriever.device_index, 1))
        assert not model.training

    def test_beams_that_do_not_fit(self, retriever):
        device_index = retriever.device_index
        logits_fn = retriever.logits_fn(prompts_of(4, 6), beam_width=5)
        with pytest.raises(hr.ArgumentError, match=r"2 prompts .* before level 0 must be \[2, 1\]; got \[3, 1\]"):
            logits_fn(hr.init_beams(device_index, 3))
        beams = hr.init_beams(device_index, 2)
        logits = logits_fn(beams)
        narrow, wide = (hr.step(device_index, beams, logits, beam_width=width) for width in (4, 5))
        with pytest.raises(hr.ArgumentError, match=r"must be \[2, 5\]; got \[2, 4\]. Pass the same beam_width"):
            logits_fn(narrow)
        logits = logits_fn(wide)
        with pytest.raises(hr.ArgumentError, match="expected the beams before level 2, but got those before level 1"):
            logits_fn(wide)
        beams = hr.step(device_index, wide, logits, beam_width=5)
        beams = hr.step(device_index, beams, logits_fn(beams), beam_width=5)
        with pytest.raises(hr.ArgumentError, match="these beams are finished: they have all 3 codes"):
            logits_fn(beams)


class TestCodeLogits:
    @pytest.mark.parametrize("name", ["llama", "gemma2"])
    def test_equals_the_model(self, name):
        model = model_of(name)
        retriever = Retriever(model, index(), TOKENS, temperature=3.0)
        for level in range(3):
            suffix = [OFFSETS[number] + 4 for number in range(level)]
            prompts = [[*prompt, *suffix] for prompt in prompts_of(3, 8, 3)]
            logits = retriever.code_logits(prompts, level)
            assert (logits.shape, logits.dtype) == ((3, CODES), torch.float32)
            for row, prompt in enumerate(prompts):
                expected = last_logits(model, tuple(prompt))[OFFSETS[level] : OFFSETS[level] + CODES]
                torch.testing.assert_close(logits[row].double(), expected, rtol=0, atol=1e-4)
            logits += 1

    def test_equals_logits_fn(self, retriever):
        prompts = prompts_of(4, 6)
        logits = retriever.logits_fn(prompts, beam_width=1)(hr.init_beams(retriever.device_index, 2))
        torch.testing.assert_close(retriever.code_logits(prompts, 0), logits[:, 0], rtol=0, atol=1e-4)

    def test_the_begin_delimiter_goes_before_the_codes(self):
        delimited = Retriever(model_of("llama"), index(), hr.TokenMap(TOKENS.token_ids, begin=BEGIN))
        plain = Retriever(model_of("llama"), index(), TOKENS)
        codes = [OFFSETS[0] + 3, OFFSETS[1] + 5]
        for level in range(3):
            expected = plain.code_logits([[5, 6, *BEGIN, *codes[:level]]], level)
            for prompt in ([5, 6, *codes[:level]], [5, 6, *BEGIN, *codes[:level]]):
                assert torch.equal(delimited.code_logits([prompt], level), expected)
        assert delimited.code_logits([codes], 2).shape == (1, CODES)

    def test_codes_may_follow_the_longest_prompt(self, retriever):
        (prompt,) = prompts_of(62)
        assert retriever.code_logits([*prompt, OFFSETS[0], OFFSETS[1]], 2).shape == (1, CODES)
        with pytest.raises(hr.ArgumentError, match="prompt 0 has 63 tokens, but the model takes 62 before a SID"):
            retriever.code_logits([*prompt, OFFSETS[0], OFFSETS[1]], 1)

    def test_codes_without_tokens_and_unused_codes(self):
        table = TOKENS.token_ids[0].copy()
        unused = int(np.setdiff1d(np.arange(CODES), catalog().sids[catalog().sids[:, 0] > 0, 0])[0])
        sids = catalog().sids[catalog().sids[:, 0] != unused]
        table[unused] = -1
        wide = hr.build_index(hr.Catalog(sids, codebook_sizes=CODES + 2))
        logits = Retriever(model_of("llama"), wide, hr.TokenMap((table, *TOKENS.token_ids[1:]))).code_logits([5, 6], 0)
        assert torch.isinf(logits[0]).nonzero()[:, 0].tolist() == [unused, CODES, CODES + 1]

    def test_no_prompts(self, retriever):
        assert retriever.code_logits([], 1).shape == (0, CODES)

    @pytest.mark.parametrize(
        ("prompts", "level", "expected"),
        [
            ([5, 6], 3, "level must be an integer from 0 up to 2; got 3"),
            ([5, 6], -1, "level must be an integer from 0"),
            ([[5, 6, 7], [5, 6]], 2, "prompt 1 has 2 tokens; level 2 needs a prompt that is followed by the tokens"),
            ([5], 2, "prompt 0 has 1 tokens; level 2"),
            ([5, 300], 1, "prompt 0 contains token 300"),
        ],
    )
    def test_rejects_other_arguments(self, retriever, prompts, level, expected):
        with pytest.raises(hr.ArgumentError, match=expected):
            retriever.code_logits(prompts, level)
