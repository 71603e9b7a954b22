"""Constraint sets and exclusions in Retriever, its explanations, and the logits processor, on the demo's films."""

import numpy as np
import pytest

import hedgerow as hr

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from hedgerow.demo.films import load_catalog, load_retriever
from hedgerow.hf import CatalogLogitsProcessor, Retriever

PROMPTS = ["Recommend me a western", "A French comedy from the 1960s with a long prompt before it", "A film by Ozu"]


@pytest.fixture(scope="module")
def retriever():
    return load_retriever(hr.build_index(load_catalog()))


@pytest.fixture(scope="module")
def recent(retriever):
    return retriever.index.constraint(lambda films: np.asarray(films["year"].fill_null(0)) >= 2000, name="since 2000")


def alone(retriever, keep) -> Retriever:
    """A retriever over an index of the films whose ids `keep` accepts."""
    catalog = load_catalog()
    index = hr.build_index(catalog.filter(np.asarray([keep(item) for item in catalog.item_ids.to_pylist()])))
    return Retriever(retriever.model, index, retriever.tokens, tokenizer=retriever.tokenizer)


def test_each_prompt_has_its_own_rules(retriever, recent):
    shown = set(recent.index.item_ids.filter(recent.mask).to_pylist())
    free = retriever.retrieve(PROMPTS, k=5)
    seen = free[2].item_ids
    # Small batches process the prompts, which have three lengths, in another order.
    small = Retriever(retriever.model, retriever.index, retriever.tokens, tokenizer=retriever.tokenizer, max_tokens=1)
    within = alone(retriever, shown.__contains__).retrieve(PROMPTS[0], k=5)[0]
    unseen = alone(retriever, lambda item: item not in seen).retrieve(PROMPTS[2], k=5)[0]
    for one in (retriever, small):
        found = one.retrieve(PROMPTS, k=5, constraints=[recent, None, None], exclude=[None, None, seen])
        assert [results.item_ids for results in found] == [within.item_ids, free[1].item_ids, unseen.item_ids]


def test_excluded_sets_equal_their_ids(retriever, recent):
    index, prompt = retriever.index, PROMPTS[2]
    seen = retriever.retrieve(prompt, k=5)[0].item_ids
    items = index.constraint(ids=seen, name="seen")
    (expected,) = retriever.retrieve(prompt, k=5, exclude=seen)
    for exclude in (items, [items]):
        assert retriever.retrieve(prompt, k=5, exclude=exclude)[0].item_ids == expected.item_ids
    both = retriever.retrieve([prompt, prompt], k=5, constraints=[recent, None], exclude=items)
    within = retriever.retrieve(prompt, k=5, constraints=recent, exclude=seen)[0]
    assert [results.item_ids for results in both] == [within.item_ids, expected.item_ids]
    (answer,) = retriever.answer([hr.Request(prompt, k=5, exclude=items)])
    assert answer.item_ids == expected.item_ids
    listed = retriever.retrieve(prompt, k=5, exclude=items, candidates=[*seen, *expected.item_ids[:2]])[0]
    assert sorted(listed.item_ids) == sorted(expected.item_ids[:2])
    explanation = retriever.explain(prompt, seen[0], constraints=recent, exclude=items)
    assert explanation.outcome == "not in the set"
    assert "~seen" in explanation.rules


def test_order_and_caps(retriever):
    (found,) = retriever.retrieve("A film directed by Akira Kurosawa", k=10, caps={"director": 2}, order_by="year")
    directors = [name for name in found.attributes["director"].to_pylist() if name]
    assert len(found) == 10
    assert max(directors.count(name) for name in directors) == 2


def test_empty_set_and_trace(retriever):
    nothing = retriever.index.constraint(ids=[])
    assert [len(results) for results in retriever.retrieve(PROMPTS[:2], constraints=[nothing, None])] == [0, 10]
    levels = retriever.trace(PROMPTS[0], beam_width=5, constraints=nothing)
    assert [beams.num_valid.tolist() for beams in levels] == [[0]] * 4


def test_lists_must_fit_the_prompts(retriever, recent):
    with pytest.raises(hr.ConstraintError, match="3 requests, but constraints for 1"):
        retriever.retrieve(PROMPTS, constraints=[recent])


@pytest.mark.parametrize("normalize", ["codes", "allowed"])
def test_explanations(retriever, recent, normalize):
    one = load_retriever(retriever.index, normalize=normalize)
    (free,) = one.retrieve(PROMPTS[0], k=10)
    years = dict(zip(free.item_ids, free.attributes["year"].to_pylist(), strict=True))
    old = next(item for item, year in years.items() if year < 2000)
    explained = one.explain(PROMPTS[0], old, constraints=recent)
    assert explained.outcome == "not in the set"
    assert "not in the constraint set" in str(explained)
    named = one.index.constraint(ids=free.item_ids, name="shelf")
    explained = one.explain(PROMPTS[0], old, constraints=named & recent)
    assert explained.rules == (recent.name,)
    explained = one.explain(PROMPTS[0], old, constraints=(~named).named("rest") & recent)
    assert explained.rules == ("rest", recent.name)
    assert f"is not in the constraint sets 'rest' and {recent.name!r}, so this search" in str(explained)
    explained = one.explain(PROMPTS[0], free.item_ids[0], exclude=[free.item_ids[:1]])
    assert (explained.outcome, explained.rank) == ("excluded", None)
    assert "is excluded" in str(explained)
    (found,) = one.retrieve(PROMPTS[0], k=10, constraints=recent, exclude=[free.item_ids])
    explained = one.explain(PROMPTS[0], found.item_ids[3], constraints=recent, exclude=[free.item_ids])
    assert (explained.outcome, explained.rank) == ("returned", 4)
    assert explained.levels[-1].score == pytest.approx(float(found.scores[3]), abs=1e-4)


class TestProcessor:
    def generated(self, retriever, rules, beams=4, sequences=4):
        ids = [retriever.encode(prompt)[0] for prompt in PROMPTS[:2]]
        longest = max(map(len, ids))
        padded = torch.tensor([[0] * (longest - len(row)) + row for row in ids])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids])
        begin = {} if retriever.tokens.begin else {"prompt_length": longest}
        processor = CatalogLogitsProcessor(retriever.index, retriever.tokens, **begin, **rules)
        levels = retriever.index.num_levels
        out = retriever.model.generate(
            padded,
            attention_mask=mask,
            logits_processor=[processor],
            num_beams=beams,
            num_return_sequences=sequences,
            max_new_tokens=levels,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=None,
        )
        tables = processor._tables_on(torch.zeros(1, retriever.model.config.vocab_size))
        sids = torch.stack([tables.codes[at][out[:, longest + at]] for at in range(levels)], dim=1)
        return sids.reshape(2, sequences, levels).numpy()

    def test_rows_have_the_rules_of_their_request(self, retriever, recent):
        index = retriever.index
        free = self.generated(retriever, {})
        first, end = index.rows_of(index.find(free[1])[:2])
        seen = [index.item_ids[row].as_py() for span in zip(first, end, strict=True) for row in range(*map(int, span))]
        sids = self.generated(retriever, {"constraints": [recent, None], "exclude": [None, seen]})
        alive = np.asarray([recent.mask[slice(*map(int, index.rows_of(leaf)))].any() for leaf in index.find(sids[0])])
        assert alive.all()
        left = {tuple(sid) for sid in free[1][:2].tolist()}
        assert index.contains(sids[1]).all()
        assert not left & {tuple(sid) for sid in sids[1].tolist()}

    def test_one_set_for_all_requests(self, retriever, recent):
        sids = self.generated(retriever, {"constraints": recent})
        mask = recent.mask
        for leaf in recent.index.find(sids.reshape(-1, 4)):
            assert mask[slice(*map(int, recent.index.rows_of(leaf)))].any()

    def test_rows_must_be_a_multiple_of_the_requests(self, retriever, recent):
        with pytest.raises(hr.ConstraintError, match="not a multiple of the 3 requests"):
            self.generated(retriever, {"constraints": [recent, None, None]})


def test_one_prompt_may_have_its_list_of_ids(retriever):
    (free,) = retriever.retrieve(PROMPTS[0], k=6)
    for exclude in (free.item_ids[:2], np.array(free.item_ids[:2])):
        assert retriever.retrieve(PROMPTS[0], exclude=exclude)[0].item_ids == (
            retriever.retrieve(PROMPTS[0], exclude=[list(exclude)])[0].item_ids
        )
        assert retriever.explain(PROMPTS[0], free.item_ids[0], exclude=exclude).outcome == "excluded"
    (some,) = retriever.retrieve(PROMPTS[0], candidates=free.item_ids[:3])
    assert sorted(some.item_ids) == sorted(free.item_ids[:3])
    with pytest.raises(hr.ConstraintError, match="one list of item ids per request; got one list of ids"):
        retriever.retrieve(PROMPTS[:2], exclude=free.item_ids[:2])
