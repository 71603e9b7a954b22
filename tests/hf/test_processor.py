"""CatalogLogitsProcessor equals a brute-force mask for any ids, and works inside generate()."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import catalogs

import hedgerow as hr

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from masks import DELIMITED, BruteForce
from tiny import CODES, TOKENS, VOCABULARY, allowed_tokens, catalog, generate, index, model_of, prompts_of

from hedgerow.hf import CatalogLogitsProcessor

# So that a random model sometimes begins a SID.
OFTEN = {(191,): 9.0, (191, 192): 15.0}


def token_map(rng, sizes, begin: int, end: int, spare: int) -> hr.TokenMap:
    """Scattered tokens for the codes, sometimes shared by levels, and delimiters that are not codes."""
    ids = rng.permutation(400)
    delimiters, codes = ids[: begin + end], ids[begin + end :]
    tables = [rng.permutation(codes[:300])[: size + spare] for size in sizes]
    return hr.TokenMap(tuple(tables), tuple(delimiters[:begin].tolist()), tuple(delimiters[begin:].tolist()))


def some_rows(rng, catalog, tokens: hr.TokenMap, length: int, count: int = 12) -> np.ndarray:
    """Ids in which complete and incomplete SIDs follow delimiters and words; a few ids are wrong."""
    codes, rows = tokens.encode(catalog.sids), []
    for _ in range(count):
        ids: list[int] = []
        while len(ids) < length:
            sid = rng.choice(codes).tolist()
            parts = [rng.integers(0, 400, rng.integers(0, 4)).tolist(), [*tokens.begin, *sid, *tokens.end]]
            ids += parts[int(rng.random() < 0.7)]
        # The last tokens decide, so rows end anywhere in a SID.
        start = int(rng.integers(0, len(ids) - length + 1))
        rows.append(ids[start : start + length])
    made = np.asarray(rows, np.int64).reshape(count, length)
    wrong = rng.random(made.shape) < 0.05
    return np.where(wrong, rng.integers(0, 400, made.shape), made)


@given(
    catalog=catalogs(),
    seed=st.integers(0, 2**32),
    length=st.sampled_from([0, 1, 4, 8, 25]),
    begin=st.integers(1, 3),
    end=st.integers(0, 3),
    spare=st.integers(0, 3),
    dense=st.sampled_from(["auto", "all", "none"]),
    codes_in_text=st.booleans(),
)
def test_equals_brute_force_within_text(catalog, seed, length, begin, end, spare, dense, codes_in_text):
    rng = np.random.default_rng(seed)
    tokens = token_map(rng, catalog.codebook_sizes, begin, end, spare)
    levels = {"auto": "auto", "all": range(catalog.num_levels), "none": ()}[dense]
    processor = CatalogLogitsProcessor(
        hr.build_index(catalog, dense_levels=levels), tokens, codes_in_text=codes_in_text
    )
    rows, scores = torch.from_numpy(some_rows(rng, catalog, tokens, length)), torch.randn(12, 400)
    expected = BruteForce(catalog.sids, tokens, 400, codes_in_text=codes_in_text).mask(rows, scores)
    assert torch.equal(processor(rows, scores), expected)


@given(
    catalog=catalogs(),
    seed=st.integers(0, 2**32),
    prompt=st.integers(0, 3),
    sids=st.integers(0, 2),
    more=st.integers(0, 7),
    end=st.integers(0, 2),
    dense=st.sampled_from(["auto", "all", "none"]),
)
def test_equals_brute_force_of_sids_alone(catalog, seed, prompt, sids, more, end, dense):
    rng = np.random.default_rng(seed)
    tokens = token_map(rng, catalog.codebook_sizes, 0, end, 0)
    levels = {"auto": "auto", "all": range(catalog.num_levels), "none": ()}[dense]
    index = hr.build_index(catalog, dense_levels=levels)
    each = np.asarray([[*sid, *tokens.end] for sid in tokens.encode(catalog.sids).tolist()])
    parts = [rng.integers(0, 400, (12, prompt))] + [rng.permuted(each)[rng.integers(0, len(each), 12)]] * sids
    rows = np.concatenate([*parts, each[rng.integers(0, len(each), 12)][:, : more % each.shape[1]]], axis=1)
    brute, scores = BruteForce(catalog.sids, tokens, 400, prompt_length=prompt), torch.randn(12, 400)
    processor = CatalogLogitsProcessor(index, tokens, prompt_length=prompt)
    assert torch.equal(processor(torch.from_numpy(rows), scores), brute.mask(torch.from_numpy(rows), scores))
    wrong = np.where(rng.random(rows.shape) < 0.05, rng.integers(0, 400, rows.shape), rows)
    left = [row for row, ids in enumerate(wrong.tolist()) if not brute.is_path(ids)]
    # A token that is repeated after a SID is padding.
    if left and not any(brute.is_padded(wrong[row].tolist()) for row in left):
        with pytest.raises(hr.ArgumentError, match=f"row {left[0]} of input_ids has left the paths"):
            processor(torch.from_numpy(wrong), scores)


def test_brute_force_by_hand():
    brute = BruteForce([[1, 2, 3], [1, 2, 4]], DELIMITED, VOCABULARY)
    words = set(range(200)) | {*range(220, 230), *range(250, 260), *range(280, 300)}
    assert brute([5, 191]) == words
    assert brute([5, 191, 192, 201]) == {232}
    assert brute([5, 191, 192, 201, 232]) == {263, 264}
    assert brute([5, 191, 192, 201, 232, 264]) == {193}
    assert brute([5, 191, 192, 201, 232, 264, 193]) == words
    assert brute([5, 191, 192, 202]) == words


class TestInGenerate:
    @pytest.mark.parametrize("name", ["qwen3", "gpt2"])
    def test_beams_equal_prefix_allowed_tokens_fn(self, name):
        model, (prompt,) = model_of(name), prompts_of(9)
        follow, options = allowed_tokens(catalog().sids, TOKENS), {"num_beams": 8, "max_new_tokens": 3}
        expected = generate(
            model, prompt, prefix_allowed_tokens_fn=lambda _, ids: follow[tuple(ids[9:].tolist())], **options
        )
        processor = CatalogLogitsProcessor(index(), TOKENS, prompt_length=9)
        found = generate(model, prompt, logits_processor=[processor], **options)
        assert found[0] == expected[0]
        assert found[1] == pytest.approx(expected[1], abs=1e-5)

    @pytest.mark.parametrize("beams", [1, 5])
    @pytest.mark.parametrize("eos", [None, 193])
    def test_text_and_sids_equal_prefix_allowed_tokens_fn(self, beams, eos):
        model, prompts = model_of("qwen3"), prompts_of(9, 4)
        # Of different lengths, so padded on the left; the second ends inside a SID.
        prompts[1] += [191, 192]
        ids = torch.tensor([prompts[0], [0] * 3 + prompts[1]])
        options = {
            "attention_mask": (ids > 0).long(),
            "do_sample": False,
            "num_beams": beams,
            "num_return_sequences": beams,
            "max_new_tokens": 30,
            "sequence_bias": OFTEN,
            "eos_token_id": eos,
        }
        brute = BruteForce(catalog().sids, DELIMITED, VOCABULARY)
        expected = model.generate(ids, prefix_allowed_tokens_fn=lambda _, row: sorted(brute(row.tolist())), **options)
        found = model.generate(ids, logits_processor=[CatalogLogitsProcessor(index(), DELIMITED)], **options)
        assert found.tolist() == expected.tolist()
        sids = [sid for row in found.tolist() for sid in sids_in(row)]
        assert len(sids) >= (4 if eos is None else 1) * len(found) // 2
        assert index().contains(DELIMITED.decode(sids)).all()

    @pytest.mark.parametrize("begin", [(), (191, 192)])
    def test_sampling_writes_only_sids_of_the_catalog(self, begin):
        torch.manual_seed(0)
        tokens = hr.TokenMap(TOKENS.token_ids, begin)
        ids = torch.tensor([[*prompts_of(5)[0], *begin]]).repeat(20, 1)
        processor = CatalogLogitsProcessor(index(), tokens, prompt_length=None if begin else 5)
        found = model_of("llama").generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, max_new_tokens=3, logits_processor=[processor]
        )
        sids = TOKENS.decode(found[:, ids.shape[1] :].numpy())
        assert index().contains(sids).all()
        assert len({tuple(sid) for sid in sids.tolist()}) > 5

    @pytest.mark.parametrize("beams", [1, 6])
    def test_encoder_decoder(self, beams):
        model = model_of("t5")
        follow = allowed_tokens(catalog().sids, TOKENS)
        options = {"do_sample": False, "num_beams": beams, "num_return_sequences": beams, "max_new_tokens": 3}
        ids = torch.tensor(prompts_of(7, 7))
        found, expected = (
            model.generate(ids, attention_mask=torch.ones_like(ids), **options, **constraint)
            for constraint in (
                {"logits_processor": [CatalogLogitsProcessor(index(), TOKENS, prompt_length=1)]},
                {"prefix_allowed_tokens_fn": lambda _, row: follow[tuple(row[1:].tolist())]},
            )
        )
        assert found.tolist() == expected.tolist()
        assert index().contains(TOKENS.decode(found[:, 1:].numpy())).all()

    @pytest.mark.parametrize(("tokens", "prompt_length"), [(DELIMITED, None), (TOKENS, 0)])
    def test_prompts_as_embeddings(self, tokens, prompt_length):
        found = (
            model_of("llama")
            .generate(
                inputs_embeds=torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0)),
                attention_mask=torch.ones((2, 5), dtype=torch.int64),
                do_sample=False,
                max_new_tokens=20 if tokens.begin else 3,
                sequence_bias=OFTEN,
                logits_processor=[CatalogLogitsProcessor(index(), tokens, prompt_length=prompt_length)],
            )
            .tolist()
        )
        sids = [sid for row in found for sid in sids_in(row)] if tokens.begin else found
        assert len(sids) >= 2
        assert index().contains(TOKENS.decode(sids)).all()

    def test_one_sid_after_another(self):
        (prompt,) = prompts_of(5)
        processor = CatalogLogitsProcessor(index(), hr.TokenMap(TOKENS.token_ids, end=(193, 194)), prompt_length=5)
        found = (
            model_of("llama")
            .generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones((1, 5), dtype=torch.int64),
                do_sample=False,
                max_new_tokens=15,
                logits_processor=[processor],
            )[0, 5:]
            .reshape(3, 5)
        )
        assert found[:, 3:].tolist() == [[193, 194]] * 3
        assert index().contains(TOKENS.decode(found[:, :3].numpy())).all()


def sids_in(ids: list[int]) -> list[list[int]]:
    """The three tokens after each begin delimiter that has three tokens after it."""
    begins = [at for at in range(len(ids) - 4) if ids[at : at + 2] == [191, 192]]
    return [ids[at + 2 : at + 5] for at in begins]


class TestScores:
    def test_the_input_scores_are_not_changed(self):
        scores = torch.randn(1, VOCABULARY)
        before = scores.clone()
        CatalogLogitsProcessor(index(), DELIMITED)(torch.tensor([[191, 192]]), scores)
        assert torch.equal(scores, before)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_other_dtypes(self, dtype):
        scores = torch.randn(1, VOCABULARY).to(dtype)
        masked = CatalogLogitsProcessor(index(), DELIMITED)(torch.tensor([[191, 192]]), scores)
        assert masked.dtype == dtype
        assert torch.isfinite(masked).sum() == len(index().allowed_codes())

    def test_scores_wider_than_the_vocabulary(self):
        processor = CatalogLogitsProcessor(index(), DELIMITED)
        for vocabulary in (VOCABULARY, 512):
            masked = processor(torch.tensor([[5]]), torch.zeros(1, vocabulary))
            assert torch.isfinite(masked).sum() == vocabulary - 3 * CODES

    def test_ids_beyond_the_scores_are_text(self):
        # Models that read images have such tokens.
        scores = torch.randn(2, 281)
        masked = CatalogLogitsProcessor(index(), DELIMITED)(torch.tensor([[191, 192, 299], [191, 192, 5]]), scores)
        assert torch.equal(torch.isfinite(masked[0]), torch.isfinite(masked[1]))

    @pytest.mark.parametrize("dense", [[], range(3)])
    @pytest.mark.parametrize(("tokens", "prompt_length"), [(DELIMITED, None), (TOKENS, 1)])
    def test_nothing_is_read_back_to_the_host(self, tokens, prompt_length, dense):
        # Tensors on this device have no values, so reading one is an error.
        made = hr.build_index(catalog(), dense_levels=dense)
        processor = CatalogLogitsProcessor(made, tokens, prompt_length=prompt_length)
        for length in range(1, 6):
            ids = torch.zeros((2, length), dtype=torch.int64, device="meta")
            assert processor(ids, torch.zeros((2, VOCABULARY), device="meta")).shape == (2, VOCABULARY)


@pytest.mark.parametrize(
    ("tokens", "options", "expected"),
    [
        (TOKENS, {}, "prompt_length or a token map with a begin delimiter .* neither is given"),
        (DELIMITED, {"prompt_length": 3}, "both are given"),
        (TOKENS, {"prompt_length": -1}, "prompt_length must be an integer from 0; got -1"),
        (TOKENS, {"prompt_length": 2.5}, "prompt_length must be an integer"),
        (hr.TokenMap.from_offsets([1, 30], CODES), {"prompt_length": 1}, "the token map has 2 levels"),
        (hr.TokenMap(TOKENS.token_ids, begin=(201,)), {}, "begin delimiter"),
        (hr.TokenMap(TOKENS.token_ids, begin=(193,), end=(193,)), {}, "begin delimiter"),
    ],
)
def test_rejects_arguments_that_do_not_fit(tokens, options, expected):
    with pytest.raises(hr.ArgumentError, match=expected):
        CatalogLogitsProcessor(index(), tokens, **options)


def test_rejects_inputs_that_do_not_fit():
    processor = CatalogLogitsProcessor(index(), TOKENS, prompt_length=4)
    with pytest.raises(hr.ArgumentError, match="names token 279, but the scores have 200 tokens"):
        processor(torch.zeros((1, 4), dtype=torch.int64), torch.zeros(1, 200))
    with pytest.raises(hr.ArgumentError, match="prompt_length is 4, but input_ids has 2 tokens"):
        processor(torch.zeros((1, 2), dtype=torch.int64), torch.zeros(1, VOCABULARY))


@pytest.mark.parametrize("exclude_as", [list, np.asarray])
@pytest.mark.parametrize(
    ("ids", "exclude", "expected"),
    [
        ([["item 1"]], [["item 1"]], "request 0 has no item to write: exclude contains every item of ConstraintSet"),
        ([None, ["item 1", "item 2"]], [None, ["item 2", "item 1", "item 9"]], "request 1 has no item to write"),
        ([["item 1"], []], None, "request 1 has no item to write: ConstraintSet.* has no items"),
        (None, [[f"item {row}" for row in range(150)]], "request 0 .*: exclude contains every item of the index"),
    ],
)
def test_rejects_a_request_without_items(ids, exclude, expected, exclude_as):
    sets = None if ids is None else [None if of_set is None else index().constraint(ids=of_set) for of_set in ids]
    exclude = exclude and [None if items is None else exclude_as(items) for items in exclude]
    with pytest.raises(hr.ConstraintError, match=expected):
        CatalogLogitsProcessor(index(), TOKENS, prompt_length=4, constraints=sets, exclude=exclude)


def test_accepts_a_request_with_one_item():
    few = index().constraint(ids=["item 1", "item 2"])
    for exclude in (
        [["item 1"]],
        [["item 1", "item 1", "item 7"]],
        [[f"item {row}" for row in range(150) if row != 2]],
    ):
        processor = CatalogLogitsProcessor(index(), TOKENS, prompt_length=1, constraints=few, exclude=exclude)
        masked = processor(torch.tensor([[5]]), torch.zeros(1, VOCABULARY))
        assert torch.isfinite(masked).nonzero()[:, 1].tolist() == [TOKENS.token_ids[0][catalog().sids[2, 0]]]


def test_rejects_a_request_whose_items_are_removed_or_excluded(tmp_path):
    live = hr.LiveIndex.create(tmp_path / "items.live", index())
    version = live.remove(["item 1"])
    pair = version.index.constraint(ids=["item 1", "item 2"])
    CatalogLogitsProcessor(version, TOKENS, prompt_length=4, constraints=pair)
    others = [f"item {row}" for row in range(150) if row != 1]
    for constraints, exclude in (
        (pair, [["item 2"]]),
        (version.index.constraint(ids=["item 1"]), None),
        (None, [others]),
    ):
        with pytest.raises(hr.ConstraintError, match="request 0 has no item to write"):
            CatalogLogitsProcessor(version, TOKENS, prompt_length=4, constraints=constraints, exclude=exclude)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"constraints": 5}, "constraints must be one constraint set for all requests, .* got int"),
        ({"constraints": []}, "have no entries"),
        ({"exclude": []}, "have no entries"),
        ({"exclude": 5}, "exclude must contain one list of item ids per request; got 5"),
        ({"exclude": np.asarray(5)}, "exclude must contain one list of item ids per request"),
    ],
)
def test_rejects_rules_of_other_types(options, expected):
    with pytest.raises(hr.ConstraintError, match=expected):
        CatalogLogitsProcessor(index(), TOKENS, prompt_length=4, **options)


def test_rejects_an_index_or_tokens_of_other_types():
    with pytest.raises(hr.ArgumentError, match="tokens must be a TokenMap; got NoneType"):
        CatalogLogitsProcessor(index(), None, prompt_length=4)  # type: ignore[arg-type]
    with pytest.raises(hr.ArgumentError, match=r"got str\. Load a saved index with hr\.load_index\(path\)"):
        CatalogLogitsProcessor("x.hedgerow", TOKENS, prompt_length=4)  # type: ignore[arg-type]
