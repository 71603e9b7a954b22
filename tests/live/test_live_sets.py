"""Version: live_items, restrict and results. A search on a version with removals equals that on the compacted index."""

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


def search(index, kernel, constraints, exclude=None, batch_size=3):
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


def live_items_of(version):
    assert version.live_items is not None
    return version.live_items


def item_ids_of(batch):
    return [results.item_ids for results in batch]


def assert_same(beams, expected):
    assert (to_numpy(beams.codes) == expected.codes).all()
    np.testing.assert_allclose(to_numpy(beams.scores), expected.scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kernel", "headroom"), [("numpy-array", None), ("torch-array", 1.5), ("numpy-native", 1.5)])
def test_equals_a_search_on_the_compacted_index(tmp_path, kernel, headroom):
    require(kernel)
    version = removed_version(tmp_path / "shop.live", headroom=headroom)
    compacted = version.index.filter(~version.removed, order="index")
    device_index = version.to(kernel.partition("-")[0])
    beams = search(device_index, kernel, version.restrict())
    expected = search(compacted, "numpy-array", None)
    assert_same(beams, expected)
    assert item_ids_of(version.results(beams)) == item_ids_of(compacted.results(expected))

    def rules(index):
        recent = index.where("year >= 2005")
        return [recent, None, recent & index.where("year < 2010")]

    exclude = [None, [5, 6, 7], version.index.item_ids.to_pylist()[:30]]
    beams = search(device_index, kernel, version.restrict(rules(version.index)), exclude)
    expected = search(compacted, "numpy-array", rules(compacted), exclude)
    assert_same(beams, expected)
    options = {"exclude": exclude, "k": 9, "order_by": "year", "caps": {"year": 2}}
    results = version.results(beams, constraints=rules(version.index), **options)
    expected_results = compacted.results(expected, constraints=rules(compacted), **options)
    assert item_ids_of(results) == item_ids_of(expected_results)


class TestLiveItems:
    def test_none_without_removals_and_headroom(self, tmp_path):
        version = hr.LiveIndex.create(tmp_path / "x", hr.build_index(catalog())).version
        assert version.live_items is None
        assert not version.removed.any()
        assert len(version.removed_rows) == 0

    def test_all_items_with_headroom(self, tmp_path):
        version = hr.LiveIndex.create(tmp_path / "x", hr.build_index(catalog()), headroom=1.5).version
        assert version.live_items == version.index.constraint(np.ones(ITEMS, bool), order="index")

    def test_items_that_were_not_removed(self, tmp_path):
        version = removed_version(tmp_path / "x")
        live_items = live_items_of(version)
        assert live_items == version.index.constraint(~version.removed, order="index")
        assert len(live_items) == version.num_items == ITEMS - len(version.removed_rows)
        assert version.removed_rows.tolist() == np.flatnonzero(version.removed).tolist()
        assert version.live_items is live_items
        assert live_items.name == "items of version 2"

    def test_after_each_change(self, tmp_path):
        live = hr.LiveIndex.create(tmp_path / "x", hr.build_index(catalog()))
        first, second = live.remove([0, 1]), live.remove([2])
        for version, num_items in ((first, ITEMS - 2), (second, ITEMS - 3)):
            assert len(live_items_of(version)) == num_items
        assert live.update().live_items is None


class TestRestrict:
    def test_without_removals_returns_the_constraints(self, tmp_path):
        index = hr.build_index(catalog())
        version = hr.LiveIndex.create(tmp_path / "a", index).version
        assert version.restrict() is None
        recent = version.index.where("year > 2000")
        assert version.restrict(recent) is recent
        version = hr.LiveIndex.create(tmp_path / "b", index, headroom=1.5).version
        assert version.restrict([None, None]) == [version.live_items] * 2

    def test_one_set_for_all_requests(self, tmp_path):
        version = removed_version(tmp_path / "x")
        assert version.restrict() == version.live_items
        recent = version.index.where("year > 2000")
        assert version.restrict(recent) == recent & live_items_of(version)

    @pytest.mark.parametrize("kind", [list, tuple])
    def test_a_set_or_none_per_request(self, tmp_path, kind):
        version = removed_version(tmp_path / "x")
        recent = version.index.where("year > 2000")
        restricted = version.restrict(kind([recent, None]))
        assert restricted == [recent & live_items_of(version), version.live_items]
        assert version.restrict(kind([None, None])) == [version.live_items] * 2
        assert version.restrict(kind([])) == []

    def test_restricting_twice_changes_nothing(self, tmp_path):
        version = removed_version(tmp_path / "x")
        recent = version.index.where("year > 2000")
        assert version.restrict(version.restrict(recent)) == version.restrict(recent)

    def test_rejects_other_constraints(self, tmp_path):
        version = removed_version(tmp_path / "shop.live")
        other = hr.build_index(catalog()).where("year > 2000")
        prepared = hr.prepare_constraints(version.index, 1, constraints=version.live_items)
        for constraints in (other, [other], "year > 2000", 5, ["x"], prepared):
            with pytest.raises(hr.ConstraintError):
                version.restrict(constraints)  # pyright: ignore[reportArgumentType]


class TestResults:
    def test_removed_items_of_a_shared_sid_are_not_returned(self, tmp_path):
        index = hr.build_index(hr.Catalog([[0], [0], [1]], item_ids=["a", "b", "c"]))
        version = hr.LiveIndex.create(tmp_path / "x", index).remove(["b"])
        beams = hr.beam_search(version.index, lambda _: np.array([[[0.0, 1.0]]]), batch_size=1, beam_width=2)
        assert item_ids_of(version.results(beams)) == [["c", "a"]]
        assert item_ids_of(version.results(beams, k=1)) == [["c"]]
        assert item_ids_of(version.results(beams, exclude=[["c"]])) == [["a"]]
        assert item_ids_of(version.results(beams, constraints=version.index.constraint(ids=["a", "b"]))) == [["a"]]
        assert item_ids_of(version.index.results(beams)) == [["c", "a", "b"]]

    def test_restricted_constraints_can_be_passed_again(self, tmp_path):
        index = hr.build_index(hr.Catalog([[0], [0], [1]], item_ids=["a", "b", "c"]))
        version = hr.LiveIndex.create(tmp_path / "x", index).remove(["b"])
        beams = hr.beam_search(version.index, lambda _: np.zeros((1, 1, 2)), batch_size=1, beam_width=2)
        assert item_ids_of(version.results(beams, constraints=version.restrict())) == [["a", "c"]]

    def test_rejects_unfinished_beams(self, tmp_path):
        version = removed_version(tmp_path / "x")
        with pytest.raises(hr.ArgumentError, match="finished beams"):
            version.results(hr.init_beams(version.index, 1))


def test_repr(tmp_path):
    live = hr.LiveIndex.create(tmp_path / "x", hr.build_index(hr.Catalog([[0], [1]])))
    assert repr(live.version) == f"Version(1, {live.version.index!r})"
    version = live.remove([0])
    assert repr(version) == f"Version(2, items=1, removed=1, {version.index!r})"
    assert repr(live) == f"LiveIndex({str(tmp_path / 'x')!r}, {version!r})"


def test_the_error_for_a_version_names_the_arguments(tmp_path):
    version = removed_version(tmp_path / "shop.live")
    for index in (version, hr.LiveIndex.open(tmp_path / "shop.live")):
        with pytest.raises(hr.ArgumentError, match=r"version\.index or version\.to.*constraints=version\.restrict\(\)"):
            search(index, "numpy-array", None)


def test_retriever_on_a_version(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tiny import TOKENS, new_model
    from tiny import catalog as tokens_catalog

    from hedgerow.hf import Retriever

    sids = tokens_catalog().sids
    ids = [f"t{row}" for row in range(len(sids))]
    index = hr.build_index(hr.Catalog(sids, codebook_sizes=tokens_catalog().codebook_sizes, item_ids=ids))
    version = hr.LiveIndex.create(tmp_path / "shop.live", index).remove(ids[::3])
    model = new_model("llama")
    results = Retriever(model, version.index, TOKENS).retrieve([[5, 6], [7]], k=None, constraints=version.restrict())
    compacted = version.index.filter(~version.removed, order="index")
    expected = Retriever(model, compacted, TOKENS).retrieve([[5, 6], [7]], k=None)
    assert item_ids_of(results) == item_ids_of(expected)

    for searched in (version, hr.LiveIndex.open(tmp_path / "shop.live")):
        retriever = Retriever(model, searched, TOKENS)
        assert item_ids_of(retriever.retrieve([[5, 6], [7]], k=None)) == item_ids_of(expected)
        assert retriever.explain([5, 6], ids[0]).outcome == "removed"
        assert "Version(2, items=100, removed=50, TrieIndex(" in repr(retriever)
    few = version.index.constraint(ids=expected[0].item_ids[:3] + ids[:1])
    results = Retriever(model, version, TOKENS).retrieve([[5, 6]], constraints=[few])[0]
    assert sorted(results.item_ids) == sorted(expected[0].item_ids[:3])


def test_logits_processor_on_a_version(tmp_path):
    pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    from hedgerow.hf import CatalogLogitsProcessor

    index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [2, 1]], codebook_sizes=3))
    version = hr.LiveIndex.create(tmp_path / "shop.live", index).remove([1], allow=["shrunk"])
    tokens = hr.TokenMap.from_offsets([0, 3], 3)
    for searched in (version, hr.LiveIndex.open(tmp_path / "shop.live")):
        processor = CatalogLogitsProcessor(searched, tokens, prompt_length=0)
        allowed = processor(torch.tensor([[2]]), torch.zeros(1, 6))[0].isfinite()
        assert allowed.nonzero()[:, 0].tolist() == [4]
    with pytest.raises(hr.ArgumentError, match="a TrieIndex, or the Version of a LiveIndex; got str"):
        CatalogLogitsProcessor("items.live", tokens, prompt_length=0)  # pyright: ignore[reportArgumentType]
