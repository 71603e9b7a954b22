"""explain() equals a search that keeps every candidate of every level."""

import json

import numpy as np
import pytest

import hedgerow as hr

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from tiny import CODES, OFFSETS, TOKENS, catalog, exhaustive, index, model_of, new_model, path_scores, prompts_of

from hedgerow.hf import Explanation, Retriever


@pytest.fixture(scope="module")
def retriever():
    return Retriever(model_of("llama"), index(), TOKENS)


def assert_explained(retriever: Retriever, prompt: list[int], item: str, beam_width: int, k: int) -> Explanation:
    """Assert that every number of an explanation equals that of an exhaustive search."""
    some, tokens, normalize = retriever.index, retriever.tokens, retriever.normalize
    model = retriever.model
    found = retriever.explain(prompt, item, beam_width=beam_width, k=k)
    ids = some.item_ids.to_pylist()
    row = ids.index(item)
    sid = next(sid for leaf, sid in enumerate(some.sids().tolist()) if row in range(*map(int, some.rows_of(leaf))))
    assert (found.item_id, list(found.sid), found.beam_width, found.k) == (item, sid, beam_width, k)
    options = {"normalize": normalize, "temperature": retriever.temperature}
    levels = exhaustive(model, prompt, some, tokens, beam_width=beam_width, **options)
    scores = path_scores(model, prompt, sid, some, tokens, **options)
    left = None
    for at, (trace, candidates) in enumerate(zip(found.levels, levels, strict=True)):
        places = {prefix: place for place, (prefix, _) in enumerate(candidates, 1)}
        kept = min(beam_width, len(candidates))
        assert (trace.code, trace.candidates, trace.kept) == (sid[at], len(candidates), kept)
        assert trace.rank == places.get(tuple(sid[: at + 1]))
        assert trace.score == pytest.approx(scores[at], abs=1e-4)
        assert trace.to_beat == pytest.approx(candidates[kept - 1][1], abs=1e-4)
        if left is None and (trace.rank is None or trace.rank > kept):
            left = at
    assert found.level == left
    best = some.find([prefix for prefix, _ in levels[-1][:beam_width]])
    items = [item for leaf in best for item in ids[slice(*map(int, some.rows_of(leaf)))]]
    rank = items.index(item) + 1 if item in items else None
    assert found.rank == rank
    assert found.outcome == ("cut" if rank is None else "returned" if rank <= k else "beyond k")
    assert (item in retriever.retrieve(prompt, beam_width=beam_width, k=k)[0].item_ids) == (found.outcome == "returned")
    return found


@pytest.mark.parametrize("normalize", ["codes", "vocab", "allowed"])
def test_equals_exhaustive_search(normalize):
    retriever = Retriever(model_of("llama"), index(), TOKENS, normalize=normalize)
    outcomes = []
    for prompt in prompts_of(5, 11):
        for beam_width, k in ((3, 10), (20, 4), (300, 12)):
            items = [f"item {row}" for row in range(beam_width % 7, 150, 15)]
            # Off-by-one errors would show at the first and last items, around k, and around the last beam.
            found = retriever.retrieve(prompt, beam_width=beam_width, k=None)[0].item_ids
            items += [found[0], found[-1], *found[k - 2 : k + 2]]
            candidates = exhaustive(
                model_of("llama"), prompt, index(), TOKENS, beam_width=beam_width, normalize=normalize
            )
            items += [f"item {catalog().sids.tolist().index([*sid])}" for sid, _ in candidates[-1][beam_width:][:2]]
            explained = [assert_explained(retriever, prompt, item, beam_width, k) for item in items]
            outcomes += [(found.outcome, found.level) for found in explained]
    assert {("returned", None), ("beyond k", None), ("cut", 0), ("cut", 1), ("cut", 2)} <= set(outcomes)


@pytest.mark.parametrize("normalize", ["codes", "vocab", "allowed"])
def test_temperature(normalize):
    retriever = Retriever(model_of("llama"), index(), TOKENS, normalize=normalize, temperature=2.5)
    for row in range(0, 150, 30):
        assert_explained(retriever, [4, 5, 6], f"item {row}", 5, 3)


def test_plain_decoding():
    with pytest.warns(UserWarning, match="decoding='plain'"):
        retriever = Retriever(model_of("bloom"), index(), TOKENS)
    for row in range(0, 150, 30):
        assert_explained(retriever, [4, 5, 6], f"item {row}", 5, 3)


def test_films():
    from hedgerow.demo.films import load_catalog, load_retriever

    films = hr.build_index(load_catalog())
    retriever = load_retriever(films)
    (prompt,) = retriever.encode("Recommend me a western")
    found = retriever.retrieve(prompt, beam_width=20, k=None)[0].item_ids
    items = [found[0], found[10], found[-1], *films.item_ids.to_pylist()[::3000]]
    outcomes = [assert_explained(retriever, prompt, item, 20, 10).outcome for item in items]
    assert set(outcomes) == {"returned", "beyond k", "cut"}


def test_one_item_and_one_level():
    one = hr.build_index(hr.Catalog([[3, 4, 5]], codebook_sizes=CODES, item_ids=["only"]))
    assert assert_explained(Retriever(model_of("llama"), one, TOKENS), [5], "only", 4, 1).rank == 1
    flat = hr.build_index(hr.Catalog([[3], [7], [9], [0]], codebook_sizes=CODES, item_ids=list("abcd")))
    retriever = Retriever(model_of("llama"), flat, hr.TokenMap.from_offsets([OFFSETS[0]], CODES))
    assert {assert_explained(retriever, [5], item, 2, 1).outcome for item in "abcd"} == {"returned", "beyond k", "cut"}


def test_items_that_share_a_sid_have_consecutive_ranks():
    shared = hr.build_index(hr.Catalog([[1, 2, 3]] * 4 + [[1, 2, 4]], codebook_sizes=CODES, item_ids=list("abcde")))
    retriever = Retriever(model_of("llama"), shared, TOKENS)
    ranks = {item: assert_explained(retriever, [5, 6], item, 2, 3).rank for item in "abcde"}
    assert [ranks[item] for item in "abcd"] in ([1, 2, 3, 4], [2, 3, 4, 5])
    # One SID can have all of the items, so that k limits the results.
    assert retriever.explain([5, 6], "d", beam_width=1, k=3).outcome in ("beyond k", "cut")


def test_item_not_in_the_index(retriever):
    found = retriever.explain([5], "item 150")
    assert (found.outcome, found.sid, found.rank, found.level, found.levels) == ("not in the index", (), None, None, ())
    assert str(found) == "Item 'item 150' is not in the index, so no prompt can return it."


@pytest.mark.parametrize("item_id", [[3, 1, 4], (3, 1, 4), ["item 1"], np.asarray([3, 1]), {"item 1"}])
def test_rejects_a_sid_instead_of_an_item_id(retriever, item_id):
    with pytest.raises(hr.ArgumentError, match=r"item_id must be the id of one item; got .*If this is a SID"):
        retriever.explain([5], item_id)


def test_the_model_is_put_into_evaluation_mode():
    model = new_model("gpt2")
    retriever = Retriever(model, index(), TOKENS)
    expected = retriever.explain([5], "item 1").levels[-1].score
    model.train()
    assert retriever.explain([5], "item 1").levels[-1].score == expected


def test_item_ids_that_are_numbers():
    numbered = hr.build_index(hr.Catalog(catalog().sids, codebook_sizes=CODES))
    retriever = Retriever(model_of("llama"), numbered, TOKENS)
    assert retriever.explain([5], 3).sid == tuple(catalog().sids[3])
    assert retriever.explain([5], np.int64(3)).sid == tuple(catalog().sids[3])
    assert retriever.explain([5], 150).outcome == "not in the index"
    assert retriever.explain([5], "3").sid == tuple(catalog().sids[3])
    assert retriever.explain([5], 2**70).outcome == "not in the index"


@pytest.mark.parametrize("item_id", [7, None, 1.5, True])
def test_an_id_of_another_type_is_not_an_unknown_id(retriever, item_id):
    with pytest.raises(hr.ArgumentError, match="item_id must be an item id of this index, of type string; got"):
        retriever.explain([5], item_id)
    numbered = Retriever(model_of("llama"), hr.build_index(hr.Catalog(catalog().sids, codebook_sizes=CODES)), TOKENS)
    with pytest.raises(hr.ArgumentError, match="item_id must be an item id of this index, of type int64; got"):
        numbered.explain([5], "three" if item_id == 7 else item_id)


@pytest.fixture(scope="module")
def styled():
    """Items with attributes for caps and for an order."""
    attributes = {
        "maker": ["ab"[row % 2] if row % 5 else None for row in range(150)],
        "kinds": [["x", "y"][: row % 3] for row in range(150)],
        "price": [(row * 7) % 50 for row in range(150)],
    }
    items = hr.Catalog(catalog().sids // 4, codebook_sizes=CODES, attributes=attributes)
    return Retriever(model_of("llama"), hr.build_index(items), TOKENS)


RULES = [
    {"caps": {"maker": 3}},
    {"caps": {"maker": 4, "kinds": 2}},
    {"order_by": "price"},
    {"order_by": ("price", "ascending"), "caps": {"kinds": 5}},
    {"candidates": [list(range(0, 150, 2))], "caps": {"maker": 2}},
    {"candidates": [list(range(0, 150, 2))], "exclude": [[2, 4, 6]], "order_by": "price"},
]


@pytest.mark.parametrize("rules", RULES)
def test_agrees_with_retrieve_under_caps_order_and_candidates(styled, rules):
    (prompt,) = prompts_of(5)
    size = {"beam_width": 30, "k": 6}
    returned = styled.retrieve(prompt, **size, **rules)[0].item_ids
    uncapped = styled.retrieve(prompt, beam_width=30, k=None, **(rules | {"caps": None}))[0].item_ids
    outcomes = set()
    for item in range(150):
        found = styled.explain(prompt, item, **size, **rules)
        outcomes.add(found.outcome)
        assert (found.outcome == "returned") == (item in returned)
        if item in returned:
            assert found.rank == returned.index(item) + 1
        if found.outcome == "capped":
            assert (found.rank, found.level) == (uncapped.index(item) + 1, None)
            name, value, most = found.capped
            assert most == rules["caps"][name]
            better = (
                styled.index.attributes.column(name).take(styled.index.rows(uncapped[: found.rank - 1])).to_pylist()
            )
            own = styled.index.attributes.column(name)[int(styled.index.rows([item])[0])].as_py()
            assert value == own or value in own
            assert sum(value == cell or value in (cell or ()) for cell in better) >= most
            assert f"caps allow {most} items with {name} {value!r}" in str(found)
        if found.outcome == "not a candidate":
            assert item % 2
            assert str(found) == f"Item {item} is not one of the candidates, so this search cannot return it."
    assert ("capped" in outcomes) == ("caps" in rules)
    assert ("not a candidate" in outcomes) == ("candidates" in rules)


def test_unknown_attributes(styled):
    for rules in ({"caps": {"colour": 1}}, {"order_by": "colour"}):
        with pytest.raises(hr.ConstraintError, match="there is no attribute 'colour'"):
            styled.explain([5], int(styled.retrieve([5])[0].item_ids[0]), **rules)


def test_trace_of_candidates(styled):
    listed = list(range(0, 150, 2))
    beams = styled.trace([5, 6], beam_width=20, candidates=[listed])[-1]
    expected = styled.retrieve([5, 6], beam_width=20, k=None, candidates=[listed])[0]
    assert {tuple(sid) for sid in expected.sids.tolist()} == {tuple(sid) for sid in beams.codes[0].tolist()}


def test_equal_scores_agree_with_retrieve():
    model = new_model("llama")
    with torch.no_grad():
        model.lm_head.weight.zero_()
    retriever = Retriever(model, index(), TOKENS)
    returned = retriever.retrieve([5, 6], beam_width=8, k=5)[0].item_ids
    for row in range(150):
        found = retriever.explain([5, 6], f"item {row}", beam_width=8, k=5)
        assert (found.outcome == "returned") == (f"item {row}" in returned)
        if found.outcome == "returned":
            assert found.rank == returned.index(f"item {row}") + 1
        if found.level is not None:
            assert (found.levels[found.level].rank or 0) > found.levels[found.level].kept


@pytest.mark.parametrize("normalize", ["codes", "vocab", "allowed"])
def test_code_with_probability_0(normalize):
    model = new_model("phi")
    sid = catalog().sids[7]
    with torch.no_grad():
        model.lm_head.bias[OFFSETS[1] + int(sid[1])] = -torch.inf
    retriever = Retriever(model, index(), TOKENS, normalize=normalize)
    found = retriever.explain([5, 6], "item 7", beam_width=300)
    assert (found.outcome, found.level, found.rank, found.levels[1].score) == ("banned", 1, None, -np.inf)
    assert str(found).endswith(f"the model gives its code {sid[1]} at level 1 probability 0.")
    assert "item 7" not in retriever.retrieve([5, 6], beam_width=300, k=None)[0].item_ids


def test_as_text_and_as_json(retriever):
    (prompt,) = prompts_of(5)
    items = retriever.retrieve(prompt, beam_width=20, k=None)[0].item_ids
    returned = retriever.explain(prompt, items[0], beam_width=20)
    assert f"was returned at rank 1, with score {returned.levels[-1].score:.3f}." in str(returned)
    beyond = retriever.explain(prompt, items[-1], beam_width=20, k=3)
    assert f"was found at rank {len(items)}, but k=3 items were requested." in str(beyond)
    missed = next(f"item {row}" for row in range(150) if f"item {row}" not in items)
    cut = retriever.explain(prompt, missed, beam_width=20)
    assert cut.level is not None
    trace = cut.levels[cut.level]
    assert f"left the beam at level {cut.level}: its prefix has score {trace.score:.3f} and rank {trace.rank}" in str(
        cut
    )
    assert f"This level needs a beam_width of at least {trace.rank}; deeper levels may need more." in str(cut)
    facts = json.loads(json.dumps(cut.to_dict()))
    assert (facts["outcome"], facts["text"], facts["levels"][0]["code"]) == ("cut", str(cut), cut.sid[0])


def test_the_stated_beam_width_is_enough_at_that_level(retriever):
    for prompt in prompts_of(5, 9):
        for row in range(0, 150, 10):
            found = retriever.explain(prompt, f"item {row}", beam_width=4)
            if found.outcome == "cut":
                rank = found.levels[found.level].rank
                again = retriever.explain(prompt, f"item {row}", beam_width=rank)
                assert again.level is None or again.level >= found.level


@pytest.mark.parametrize("options", [{"beam_width": 0}, {"k": 0}, {"k": None}, {"beam_width": 2.0}])
def test_counts(retriever, options):
    with pytest.raises(hr.ArgumentError, match="must be a positive integer"):
        retriever.explain([5], "item 1", **options)


def test_one_prompt_at_a_time(retriever):
    with pytest.raises(hr.ArgumentError, match="expected one prompt; got 2"):
        retriever.explain([[5], [6]], "item 1")


def test_an_item_that_was_removed_from_a_live_index(tmp_path):
    live = hr.LiveIndex.create(tmp_path / "live", index())
    live.remove(["item 3"])
    found = Retriever(model_of("llama"), live, TOKENS).explain([5], "item 3")
    assert (found.outcome, found.levels) == ("removed", ())
    assert found.sid == tuple(catalog().sids[3].tolist())
    assert str(found) == "Item 'item 3' was removed from the live index, so no prompt can return it."
