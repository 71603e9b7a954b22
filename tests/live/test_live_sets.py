"""Removal as a constraint set: a search on a version with removals is that of the index without them."""

import numpy as np
import pytest
from support import FakeModel, array_of, require

import hedgerow as hr
from hedgerow.decode.ops import to_numpy

SIZES = (8, 40, 300, 9)
ITEMS, WIDTH = 400, 30


def catalog():
    rng = np.random.default_rng(0)
    sids = np.stack([rng.integers(0, size, ITEMS) for size in SIZES], axis=1)
    # A quarter of the items share a SID with another.
    sids[::4] = sids[1::4]
    attributes = {"year": rng.integers(1990, 2020, ITEMS)}
    return hr.Catalog(sids, codebook_sizes=SIZES, item_ids=np.arange(ITEMS), attributes=attributes)


def removed_version(path, share=0.4, **options):
    live = hr.LiveIndex.create(path, hr.build_index(catalog()), **options)
    return live.remove(np.flatnonzero(np.random.default_rng(1).random(ITEMS) < share).tolist())


def searched(index, kernel, constraints, exclude=None, batch_size=3):
    backend, _, name = kernel.partition("-")
    model = FakeModel(SIZES)
    return hr.beam_search(
        index,
        lambda beams: array_of(backend, model(beams)),
        batch_size=batch_size,
        beam_width=WIDTH,
        kernel=name,
        constraints=constraints,
        exclude=exclude,
    )


def assert_same(beams, expected):
    assert (to_numpy(beams.codes) == expected.codes).all()
    np.testing.assert_allclose(to_numpy(beams.scores), expected.scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kernel", "headroom"), [("numpy-array", None), ("torch-array", 1.5), ("numpy-numba", 1.5)])
def test_beams_are_those_of_the_compacted_index(tmp_path, kernel, headroom):
    require(kernel)
    version = removed_version(tmp_path / "shop.live", headroom=headroom)
    left = version.index.filter(~version.removed)
    device_index = version.to(kernel.partition("-")[0])
    beams = searched(device_index, kernel, version.restrict())
    expected = searched(left, "numpy-array", None)
    assert_same(beams, expected)
    assert [found.item_ids for found in version.results(beams)] == [found.item_ids for found in left.results(expected)]

    def rules(index):
        fresh = index.where("year >= 2005")
        return [fresh, None, fresh & index.where("year < 2010")]

    exclude = [None, [5, 6, 7], version.index.item_ids.to_pylist()[:30]]
    beams = searched(device_index, kernel, version.restrict(rules(version.index)), exclude)
    expected = searched(left, "numpy-array", rules(left), exclude)
    assert_same(beams, expected)
    options = {"exclude": exclude, "k": 9, "order_by": "year", "caps": {"year": 2}}
    ours = version.results(beams, constraints=rules(version.index), **options)
    theirs = left.results(expected, constraints=rules(left), **options)
    assert [found.item_ids for found in ours] == [found.item_ids for found in theirs]


def test_without_removals_nothing_is_bound_unless_there_is_headroom(tmp_path):
    index = hr.build_index(catalog())
    plain = hr.LiveIndex.create(tmp_path / "a", index).version
    assert plain.live_items is None
    assert plain.restrict() is None
    some = plain.index.where("year > 2000")
    assert plain.restrict(some) is some
    roomy = hr.LiveIndex.create(tmp_path / "b", index, headroom=1.5).version
    assert roomy.live_items is not None
    assert roomy.live_items.num_items == ITEMS
    assert roomy.restrict([None, None]) == [roomy.live_items] * 2


def test_what_is_not_a_set_of_the_version_is_refused(tmp_path):
    version = removed_version(tmp_path / "shop.live")
    other = hr.build_index(catalog()).where("year > 2000")
    for wrong in (
        other,
        [other],
        "year > 2000",
        5,
        ["x"],
        hr.prepare_constraints(version.index, 1, constraints=version.live_items),
    ):
        with pytest.raises(hr.ConstraintError):
            version.restrict(wrong)  # pyright: ignore[reportArgumentType]


def test_a_search_says_what_to_give_of_a_version(tmp_path):
    version = removed_version(tmp_path / "shop.live")
    for given in (version, hr.LiveIndex.open(tmp_path / "shop.live")):
        with pytest.raises(hr.ArgumentError, match=r"version\.index or version\.to.*constraints=version\.within\(\)"):
            searched(given, "numpy-array", None)


def test_a_retriever_takes_them(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tiny import TOKENS, new_model
    from tiny import catalog as tokens_catalog

    from hedgerow.hf import Retriever

    made = tokens_catalog()
    ids = [f"t{row}" for row in range(made.num_items)]
    index = hr.build_index(hr.Catalog(made.sids, codebook_sizes=made.codebook_sizes, item_ids=ids))
    version = hr.LiveIndex.create(tmp_path / "shop.live", index).remove(ids[::3])
    model = new_model("llama")
    found = Retriever(model, version.index, TOKENS).retrieve([[5, 6], [7]], k=None, constraints=version.restrict())
    left = Retriever(model, version.index.filter(~version.removed), TOKENS).retrieve([[5, 6], [7]], k=None)
    assert [results.item_ids for results in found] == [results.item_ids for results in left]

    few = version.index.constraint(ids=left[0].item_ids[:3] + ids[:1])
    for given in (version, hr.LiveIndex.open(tmp_path / "shop.live")):
        retriever = Retriever(model, given, TOKENS)
        assert [results.item_ids for results in retriever.retrieve([[5, 6], [7]], k=None)] == [
            results.item_ids for results in left
        ]
        assert retriever.explain([5, 6], ids[0]).outcome == "not in the index"
        assert "Version(2, items=100, removed=50, TrieIndex(" in repr(retriever)
    found = Retriever(model, version, TOKENS).retrieve([[5, 6]], constraints=[few])[0]
    assert sorted(found.item_ids) == sorted(left[0].item_ids[:3])


def test_a_processor_takes_a_version(tmp_path):
    pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    from hedgerow.hf import CatalogLogitsProcessor

    index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [2, 1]], codebook_sizes=3))
    version = hr.LiveIndex.create(tmp_path / "shop.live", index).remove([1], allow=["shrunk"])
    tokens = hr.TokenMap.from_offsets([0, 3], 3)
    for given in (version, hr.LiveIndex.open(tmp_path / "shop.live")):
        processor = CatalogLogitsProcessor(given, tokens, prompt_length=0)
        allowed = processor(torch.tensor([[2]]), torch.zeros(1, 6))[0].isfinite()
        assert allowed.nonzero()[:, 0].tolist() == [4]
    with pytest.raises(hr.ArgumentError, match="a TrieIndex, or the Version of a LiveIndex; got str"):
        CatalogLogitsProcessor("items.live", tokens, prompt_length=0)  # pyright: ignore[reportArgumentType]
