"""All arrays that public objects hold are read-only: also before and after use, and of unpickled and copied objects."""

import copy
import pickle

import numpy as np
import pytest
from reachable import arrays_in

import hedgerow as hr

OTHER = {"plain": "compact", "compact": "plain"}
SIDS = np.random.default_rng(0).integers(0, 8, (300, 3))


def catalog(first: int = 0, prefix: str = "i", many: int = 300) -> hr.Catalog:
    """Items whose SIDs begin with `first` or one of the next three codes."""
    sids = SIDS[:many].copy()
    sids[:, 0] = first + sids[:, 0] % 4
    ids = [f"{prefix}{row}" for row in range(many)]
    return hr.Catalog(sids, codebook_sizes=8, item_ids=ids, attributes={"year": np.arange(many)})


def used(index):
    """An index after lookups, sets and a search, which keep what they make."""
    index.rows(index.item_ids[:3])
    index.find(index.sids()[:2])
    items = index.constraint(ids=index.item_ids[:5])
    assert items.mask.sum() == min(5, len(index))
    assert items.num_sids
    sizes = index.codebook_sizes
    beams = hr.beam_search(
        index,
        lambda beams: np.zeros((*beams.states.shape, sizes[beams.level])),
        batch_size=1,
        beam_width=4,
        constraints=items,
        exclude=[index.item_ids[:1]],
    )
    index.results(beams, constraints=items)
    return index


def quantizer(*_):
    pytest.importorskip("faiss")
    return hr.semantic_ids(np.random.default_rng(0).normal(size=(200, 8)), levels=2, codebook_sizes=8).quantizer


def loaded(index, folder, *, mmap):
    index.save(folder / "a.hedgerow")
    return hr.load_index(folder / "a.hedgerow", mmap=mmap)


def live(index, folder):
    """A live index with an added and a removed item."""
    found = hr.LiveIndex.create(folder / "a.live", index)
    found.add(catalog(4, "z", 40))
    found.remove(["i3"])
    assert len(found.version.removed_rows) == 1
    return found


def prepared(index, _):
    return hr.prepare_constraints(
        index, 2, constraints=[index.constraint(ids=["i1"]), None], exclude=[None, ["i1", "i2"]]
    )


# From an index and a folder.
INDEXES = {
    "built": lambda index, _: index,
    "loaded": lambda index, folder: loaded(index, folder, mmap=False),
    "mapped": lambda index, folder: loaded(index, folder, mmap=True),
    "merged": lambda index, _: hr.merge(index, catalog(2, "k", 50), ["i1"]),
    "without items": lambda index, _: hr.merge(index, None, ["i1"]),
    "concatenated": lambda index, _: hr.concat([index, hr.build_index(catalog(4, "j"), layout=index.layout)]),
    "in the other layout": lambda index, _: hr.concat(
        [index], layout="compact" if index.layout == "plain" else "plain"
    ),
    "filtered": lambda index, _: index.filter(index.constraint(ids=["i1", "i2"])),
    "with attributes": lambda index, _: index.with_attributes({"item_id": ["i1"], "year": [3]}),
    "live": lambda index, folder: live(index, folder).version.index,
    "ragged": lambda *_: hr.build_index(
        hr.Catalog.from_json({"a": [1], "b": [1, 2], "c": [1, 2]}, codebook_sizes=4, ragged=True)
    ),
}
OTHERS = {
    "catalog": lambda *_: catalog(),
    "filtered catalog": lambda *_: catalog().filter(np.arange(300) % 2 == 0),
    "candidates": lambda index, _: index.candidates([["i1", "i2"], ["i3"]]),
    "prepared": prepared,
    "device": lambda index, _: index.to("numpy"),
    "version": lambda index, folder: live(index, folder).version,
    "live index": live,
    "differences": lambda index, _: hr.diff(index, hr.merge(index, catalog(4, "k", 50), ["i1"])),
    "tokens": lambda index, _: hr.TokenMap.from_offsets([10, 20, 30], codebook_sizes=8).of_index(index),
    "quantizer": quantizer,
}
SETS = {
    "ids": lambda one, _: one,
    "mask": lambda _, other: other,
    "and": lambda one, other: one & other,
    "or": lambda one, other: one | other,
    "not": lambda one, _: ~one,
    "xor": lambda one, other: one ^ other,
    "difference": lambda one, other: one - other,
}


def assert_read_only(thing):
    found = [(path, array) for path, array in arrays_in(thing) if array.size]
    assert found
    assert [path for path, array in found if array.flags.writeable] == []


def assert_all_read_only(thing, *, is_used=lambda thing: thing):
    """Of the object, of its copies, and of all of them after use."""
    again = [pickle.loads(pickle.dumps(thing)), copy.deepcopy(thing), copy.copy(thing)]
    for each in (thing, *again):
        assert_read_only(each)
        assert_read_only(is_used(each))
    assert_read_only(pickle.loads(pickle.dumps(thing)))


@pytest.mark.parametrize("layout", ["plain", "compact"])
@pytest.mark.parametrize("name", INDEXES)
def test_indexes(name, layout, tmp_path):
    index = INDEXES[name](hr.build_index(catalog(), layout=layout), tmp_path)
    assert_all_read_only(index, is_used=used)


@pytest.mark.parametrize("layout", ["plain", "compact"])
@pytest.mark.parametrize("name", OTHERS)
def test_other_objects(name, layout, tmp_path):
    made = OTHERS[name](hr.build_index(catalog(), layout=layout), tmp_path)
    if name == "live index":
        assert_read_only(made)
    else:
        assert_all_read_only(made)


@pytest.mark.parametrize("name", SETS)
def test_sets(name):
    index = hr.build_index(catalog())
    found = SETS[name](index.constraint(ids=["i1", "i2"]), index.constraint(np.arange(300) < 9, order="index"))

    def is_used(items):
        assert items.mask.sum() == items.num_items
        assert items.num_sids
        return items

    assert_all_read_only(found, is_used=is_used)


def test_arrays_of_functions_are_found():
    """The check finds what an index has not made yet: the arguments of functions."""
    index = hr.concat([hr.build_index(catalog())])
    array = np.zeros(3)
    index.__dict__["_later"] = lambda: array
    with pytest.raises(AssertionError, match=r"\._later\.closure\[0\]"):
        assert_read_only(index)
