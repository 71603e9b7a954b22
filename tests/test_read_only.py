"""Arrays of unpickled and copied objects are read-only, as those of the objects that were made."""

import copy
import pickle

import numpy as np
import pytest

import hedgerow as hr

SIDS = np.random.default_rng(0).integers(0, 8, (300, 3))


def arrays_of(thing, seen):
    """All arrays that an object of hedgerow holds."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, np.ndarray):
        yield thing
    elif isinstance(thing, list | tuple):
        for each in thing:
            yield from arrays_of(each, seen)
    elif type(thing).__module__.startswith("hedgerow"):
        for value in vars(thing).values():
            yield from arrays_of(value, seen)


def index():
    catalog = hr.Catalog(SIDS, codebook_sizes=8, item_ids=[f"i{row}" for row in range(300)])
    found = hr.build_index(catalog)
    found.rows(["i3"])
    return found


def compact():
    return hr.build_index(hr.Catalog(SIDS, codebook_sizes=8), layout="compact")


def constraint():
    found = index().constraint(ids=["i1", "i2"])
    assert found.num_sids
    return found


def quantizer():
    pytest.importorskip("faiss")
    return hr.semantic_ids(np.random.default_rng(0).normal(size=(200, 8)), levels=2, codebook_sizes=8).quantizer


def loaded(tmp_path):
    index().save(tmp_path / "a.hedgerow")
    return hr.load_index(tmp_path / "a.hedgerow", mmap=False)


MADE = {
    "catalog": lambda: hr.Catalog(SIDS, codebook_sizes=8),
    "index": index,
    "compact": compact,
    "ragged": lambda: hr.build_index(hr.Catalog.from_json({"a": [1], "b": [1, 2]}, codebook_sizes=4, ragged=True)),
    "set": constraint,
    "device": lambda: index().to("numpy"),
    "tokens": lambda: hr.TokenMap.from_offsets([10, 20, 30], codebook_sizes=8),
    "quantizer": quantizer,
}


@pytest.mark.parametrize("again", [lambda it: pickle.loads(pickle.dumps(it)), copy.deepcopy, copy.copy])
@pytest.mark.parametrize("name", [*MADE, "loaded"])
def test_arrays_are_read_only(name, again, tmp_path):
    made = loaded(tmp_path) if name == "loaded" else MADE[name]()
    for thing in (made, again(made)):
        arrays = list(arrays_of(thing, set()))
        assert arrays
        assert not any(array.flags.writeable for array in arrays if array.size)
