"""Rows that leave the catalog, ids outside the vocabulary, and torch.compile: errors, not text."""

import numpy as np
import pytest

import hedgerow as hr

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers
from masks import DELIMITED, BruteForce
from tiny import CODES, TOKENS, VOCABULARY, catalog, index, model_of, new_model, prompts_of

from hedgerow.hf import CatalogLogitsProcessor


def processor_of(prompt_length: int = 4, **rules) -> CatalogLogitsProcessor:
    return CatalogLogitsProcessor(index(), TOKENS, prompt_length=prompt_length, **rules)


class TestRowsThatLeaveTheCatalog:
    @pytest.mark.parametrize("given", [0, 2, 3])
    def test_a_wrong_prompt_length(self, given):
        ids = torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10]])
        options = {"attention_mask": (ids > 0).long(), "do_sample": False, "max_new_tokens": 6}
        first = {0: 3}.get(given, given)
        with pytest.raises(hr.ArgumentError, match=rf"row 0 .* its tokens \[.*6\], from position {first} on"):
            model_of("qwen3").generate(ids, logits_processor=[processor_of(given)], **options)
        found = model_of("qwen3").generate(ids, logits_processor=[processor_of(4)], **options)[:, 4:]
        assert index().contains(TOKENS.decode(found.reshape(4, 3).numpy())).all()

    def test_the_row_that_left_is_named(self):
        sid = TOKENS.encode(catalog().sids[:1])[0].tolist()
        rows = torch.tensor([[1, 2, 3, 4, *sid[:2]], [5, 6, 7, 8, sid[0], 9]])
        with pytest.raises(hr.ArgumentError, match=rf"row 1 of .* its tokens \[{sid[0]}, 9\], from position 4 on"):
            processor_of()(rows, torch.zeros(2, VOCABULARY))

    def test_a_start_of_two_tokens_and_a_forced_start(self):
        x = torch.tensor(prompts_of(9))
        model, options = new_model("t5"), {"do_sample": False, "max_new_tokens": 3}
        start = torch.tensor([[0, 7]])
        with pytest.raises(hr.ArgumentError, match=r"row 0 of input_ids has left .* tokens \[7\], from position 1 on"):
            model.generate(x, decoder_input_ids=start, logits_processor=[processor_of(1)], **options)
        model.generation_config.forced_bos_token_id = 9
        with pytest.raises(
            hr.ArgumentError, match=r"row 0: .* other processors exclude all of them .*forced_bos_token"
        ):
            model.generate(x, logits_processor=[processor_of(1)], **options)
        with pytest.raises(hr.ArgumentError, match=r"prompt_length is 2, but input_ids has 1 tokens.*forced_bos_token"):
            model.generate(x, logits_processor=[processor_of(2)], **options)

    @pytest.mark.parametrize("pad", [0, 200, 193])
    @pytest.mark.parametrize("end", [(), (193,)])
    def test_padding_after_a_sid(self, pad, end):
        """Row 0 has ended and is padded, here with a word, a code or the end token; row 1 goes on."""
        tokens = hr.TokenMap(TOKENS.token_ids, end=end)
        sids = [[*sid, *end] for sid in tokens.encode(catalog().sids[1:4]).tolist()]
        processor = CatalogLogitsProcessor(index(), tokens, prompt_length=1)
        for more in range(1, 2 * len(sids[0])):
            rows = torch.tensor([[1, *sids[0], *[pad] * more], [1, *sids[0], *(sids[1] + sids[2])[:more]]])
            expected = BruteForce(catalog().sids, tokens, VOCABULARY, prompt_length=1)(rows[1].tolist())
            masked = processor(rows, torch.zeros(2, VOCABULARY))
            assert set(torch.isfinite(masked[1]).nonzero()[:, 0].tolist()) == expected
        with pytest.raises(hr.ArgumentError, match="row 0 of input_ids has left the paths"):
            processor(torch.tensor([[1, sids[0][0], pad]]), torch.zeros(1, VOCABULARY))

    def test_beam_sampling_with_fewer_items_than_beams(self):
        few = hr.build_index(hr.Catalog([[1, 2, 3], [1, 2, 4], [5, 6, 7]], codebook_sizes=CODES))
        ids = torch.tensor(prompts_of(5))
        for seed in range(8):
            torch.manual_seed(seed)
            processor = CatalogLogitsProcessor(few, TOKENS, prompt_length=5)
            with pytest.raises(
                hr.ArgumentError, match=r"left the paths.*beam sampling \(do_sample=True\) needs as many"
            ):
                model_of("qwen3").generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    logits_processor=[processor],
                    num_beams=5,
                    max_new_tokens=3,
                    do_sample=True,
                )

    def test_a_row_outside_its_constraints(self):
        (one, two) = catalog().sids[[1, 2]]
        row = torch.tensor([[1, 2, 3, 4, int(TOKENS.token_ids[0][two[0]])]])
        assert one[0] != two[0]
        processor = processor_of(constraints=index().constraint(ids=["item 1"]))
        with pytest.raises(hr.ConstraintError, match="row 0 of input_ids begins a SID of the catalog, but no such SID"):
            processor(row, torch.zeros(1, VOCABULARY))

    def test_a_forced_last_token(self):
        ids = torch.tensor(prompts_of(4))
        options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 3, "forced_eos_token_id": 9}
        with pytest.raises(hr.ArgumentError, match=r"other processors exclude all of them .* forced_eos_token_id"):
            model_of("qwen3").generate(ids, logits_processor=[processor_of()], do_sample=False, **options)

    def test_tokens_that_others_exclude(self):
        ended = CatalogLogitsProcessor(index(), hr.TokenMap(TOKENS.token_ids, end=(193,)), prompt_length=0)
        sid = torch.from_numpy(TOKENS.encode(catalog().sids[:1]))
        for processor, ids in ((processor_of(), torch.tensor([[1, 2, 3, 4]])), (ended, sid)):
            for value, message in ((-torch.inf, "other processors exclude all of them"), (torch.nan, "a score is NaN")):
                scores = torch.zeros(2, VOCABULARY)
                scores[0] = value
                with pytest.raises(hr.ArgumentError, match=f"row 0: of the tokens that the catalog allows, {message}"):
                    processor(ids, scores[:1])
                # Other beams can go on.
                with pytest.warns(UserWarning, match=f"row 0: of the tokens that the catalog allows, {message}"):
                    masked = processor(ids.repeat(2, 1), scores)
                assert torch.equal(masked[1:], processor(ids, scores[1:]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("token", [-1, -7, -(10**12), -(2**63), 10**12, 2**63 - 1])
def test_ids_outside_the_vocabulary_are_text(token, dtype):
    scores = torch.zeros((2, VOCABULARY), dtype=dtype)
    masked = CatalogLogitsProcessor(index(), DELIMITED)(torch.tensor([[191, 192, token], [191, 192, 5]]), scores)
    assert torch.equal(masked[0], masked[1])
    assert torch.isfinite(masked[0]).sum() == VOCABULARY - 3 * CODES
    with pytest.raises(hr.ArgumentError, match="row 0 of input_ids has left the paths"):
        processor_of(1)(torch.tensor([[5, token]]), scores[:1])


class TestCompiled:
    """torch.compile runs the processor outside of its graphs."""

    def test_the_mask_is_the_same(self):
        sids = torch.from_numpy(TOKENS.encode(catalog().sids[:3]))
        for rows in (sids[:, :0], sids[:, :1], sids[:, :2]):
            scores = torch.randn(3, VOCABULARY)
            expected = processor_of(0)(rows, scores)
            for processor in (processor_of(0), processor_of(0, constraints=~index().constraint(ids=[]))):
                assert torch.equal(torch.compile(processor, backend="eager")(rows, scores), expected)

    def test_a_loop_with_the_processor(self):
        def write(ids, processors):
            for _ in range(3):
                scores = processors(ids, model(ids[:, -1]))
                ids = torch.cat([ids, scores.argmax(-1, keepdim=True)], 1)
            return ids

        ids, model = torch.tensor(prompts_of(5, 5)), torch.nn.Embedding(VOCABULARY, VOCABULARY)
        processors = transformers.LogitsProcessorList([processor_of(5)])
        with torch.no_grad():
            found = torch.compile(write, backend="eager")(ids, processors)
        assert found.tolist() == write(ids, processors).tolist()
        assert index().contains(TOKENS.decode(found[:, 5:].numpy())).all()

    def test_a_whole_graph_is_refused(self):
        from torch._dynamo.exc import Unsupported

        processor = processor_of(1)
        compiled = torch.compile(lambda ids, scores: processor(ids, scores), backend="eager", fullgraph=True)
        with pytest.raises(Unsupported, match=r"torch\.compiler\.disable"):
            compiled(torch.tensor([[5]]), torch.zeros(1, VOCABULARY))


def test_continuous_batching_drops_it_with_a_warning():
    assert CatalogLogitsProcessor.supports_continuous_batching is False


class TestInputs:
    @pytest.mark.parametrize(
        ("ids", "scores", "message"),
        [
            (torch.zeros(4).long(), torch.zeros(VOCABULARY), r"got \[4\] and \[300\]\. .*input_ids\[None\]"),
            (torch.zeros(1, 4).long(), torch.zeros(VOCABULARY), r"got \[1, 4\] and \[300\]"),
            (torch.zeros(2, 4).long(), torch.zeros(1, VOCABULARY), r"got \[2, 4\] and \[1, 300\]"),
            (torch.zeros(1, 4).long(), torch.zeros(1, 4, VOCABULARY), r"got \[1, 4\] and \[1, 4, 300\]"),
            (np.zeros((1, 4), int), np.zeros((1, VOCABULARY)), "input_ids must be a torch tensor; got ndarray"),
            (torch.zeros(1, 4).long(), np.zeros((1, VOCABULARY)), "scores must be a torch tensor; got ndarray"),
            ([[0] * 4], torch.zeros(1, VOCABULARY), "input_ids must be a torch tensor; got list"),
            (None, torch.zeros(1, VOCABULARY), "got NoneType"),
            (torch.zeros(1, 4), torch.zeros(1, VOCABULARY), r"got torch\.float32 and torch\.float32"),
            (torch.zeros(1, 4).bool(), torch.zeros(1, VOCABULARY), r"got torch\.bool"),
            (torch.zeros(1, 4).long(), torch.zeros(1, VOCABULARY).long(), r"and torch\.int64"),
            (torch.zeros(1, 4).long(), torch.zeros(1, VOCABULARY).to_sparse(), r"sparse_coo"),
            (torch.zeros(1, 4).long(), torch.zeros(1, VOCABULARY, device="meta"), "on cpu, but the scores are on meta"),
        ],
    )
    def test_other_types_and_shapes(self, ids, scores, message):
        for processor in (processor_of(), CatalogLogitsProcessor(index(), DELIMITED)):
            with pytest.raises(hr.ArgumentError, match=message):
                processor(ids, scores)

    def test_tokens_as_int32(self):
        ids, scores = torch.zeros(1, 4, dtype=torch.int32), torch.zeros(1, VOCABULARY)
        assert torch.equal(processor_of()(ids, scores), processor_of()(ids.long(), scores))
