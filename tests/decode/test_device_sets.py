"""Constraint sets of masks on a device: computed there, and equal to those of the host bit for bit.

A CPU stands in for the device: its arrays are taken for those of an accelerator.
"""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import FakeModel, array_of, catalogs, dense_levels_of

import hedgerow as hr
from hedgerow.constraints import create
from hedgerow.constraints.device_sets import DeviceSet, is_on_device
from hedgerow.decode import prepare
from hedgerow.decode.alive import alive_on_device, leaves_on_device
from hedgerow.decode.capacity import padded_alive, padded_leaves
from hedgerow.decode.ops import to_numpy

SIZES = (8, 8, 8)
BATCH, WIDTH = 2, 6


@pytest.fixture(params=["torch", "jax"])
def backend(request):
    pytest.importorskip(request.param)
    return request.param


@pytest.fixture
def on_device(monkeypatch):
    monkeypatch.setattr(create, "is_on_device", lambda mask: not isinstance(mask, np.ndarray))
    monkeypatch.setattr(prepare, "is_accelerated", lambda index: index.backend != "numpy")


@pytest.fixture
def index():
    # Neighbours that share a SID, and SIDs that stand alone.
    return hr.build_index(hr.Catalog(np.random.default_rng(0).integers(0, 8, (300, 3)), codebook_sizes=SIZES))


def mask_of(index, seed, share=0.5):
    return np.random.default_rng(seed).random(index.num_items) < share


def searched(index, backend, constraints, exclude=None):
    model = FakeModel(SIZES)
    beams = hr.beam_search(
        index.to(backend),
        lambda beams: array_of(backend, model(beams)),
        batch_size=BATCH,
        beam_width=WIDTH,
        constraints=constraints,
        exclude=exclude,
    )
    return to_numpy(beams.codes), to_numpy(beams.scores)


def test_the_words_equal_those_of_the_host(backend):
    @settings(max_examples=10 if backend == "jax" else 60)
    @given(catalog=catalogs(), dense=st.sampled_from(["auto", "all", "none"]), seed=st.integers(0, 2**32))
    def check(catalog, dense, seed):
        index = hr.build_index(catalog, dense_levels=dense_levels_of(dense, catalog.num_levels))
        mask = mask_of(index, seed, 0.4)
        alive = index.constraint(mask, order="index")._alive
        for capacity in (None, hr.Capacity.of(index, headroom=1.5)):
            device_index = index.to(backend, capacity=capacity)
            leaves = leaves_on_device(device_index, index, array_of(backend, mask))
            host = alive.leaves if capacity is None else padded_leaves(capacity, alive.leaves)
            assert (to_numpy(leaves).view(np.uint32) == host).all()
            levels = alive_on_device(device_index, leaves)
            host_levels = alive.levels if capacity is None else padded_alive(capacity, index, alive.levels)
            for words, expected in zip(levels, host_levels, strict=True):
                assert (to_numpy(words).view(np.uint32) == expected).all()

    check()


@pytest.mark.usefixtures("on_device")
def test_a_search_equals_that_with_a_set_of_the_host(backend, index):
    masks = [mask_of(index, seed, 0.2) for seed in (1, 2)]
    host = [index.constraint(mask, order="index") for mask in masks]
    device = [index.constraint(array_of(backend, mask), order="index") for mask in masks]
    assert all(isinstance(each, DeviceSet) for each in device)
    for ours, theirs in ((device, host), ([device[0], None], [host[0], None]), ([device[0], host[1]], host)):
        found, expected = searched(index, backend, ours), searched(index, backend, theirs)
        assert (found[0] == expected[0]).all()
        assert (found[1] == expected[1]).all()
    # Nothing was copied to the host.
    assert all("_words" not in each.__dict__ for each in device)
    assert [each.mask.tolist() for each in device] == [mask.tolist() for mask in masks]
    assert device == host
    assert hash(device[0]) == hash(host[0])
    # An index elsewhere uses the copy on the host.
    assert (searched(index, "numpy", device)[0] == searched(index, "numpy", host)[0]).all()


@pytest.fixture
def no_copies(monkeypatch):
    """Copies of items to the host are errors."""

    def copied(_):
        raise AssertionError("the items were copied to the host")

    monkeypatch.setattr(DeviceSet, "_words", property(copied))


@pytest.mark.usefixtures("on_device", "no_copies")
def test_a_search_excludes_the_items_of_masks_and_rows(backend, index):
    masks, rows = [mask_of(index, seed, 0.8) for seed in (1, 2)], np.flatnonzero(mask_of(index, 3, 0.7))
    ids = index.item_ids.to_pylist()
    lists = [[ids[row] for row in np.flatnonzero(mask)] for mask in masks]
    by_mask = [index.constraint(array_of(backend, mask), order="index", name="seen") for mask in masks]
    by_rows = index.constraint(rows=array_of(backend, rows), missing="ignore")
    allowed, of_rows = index.constraint(mask_of(index, 4), order="index", name="new"), [ids[row] for row in rows]
    allowed_there = index.constraint(array_of(backend, allowed.mask), order="index")
    for constraints, exclude, expected in (
        (None, by_mask, lists),
        (None, by_rows, [of_rows, of_rows]),
        # A set of the host is copied to the device, and not the other way.
        ([allowed, None], [by_mask[0], by_rows], [lists[0], of_rows]),
        (allowed_there, by_mask, lists),
        ([None, allowed], [by_rows, lists[1]], [of_rows, lists[1]]),
    ):
        ours = searched(index, backend, constraints, exclude)
        host = allowed if constraints is allowed_there else constraints
        theirs = searched(index, backend, host, expected)
        assert (ours[0] == theirs[0]).all()
        assert (ours[1] == theirs[1]).all()


@pytest.mark.usefixtures("on_device")
def test_results_without_excluded_items(backend, index):
    mask = mask_of(index, 1)
    seen = index.constraint(array_of(backend, mask), order="index")
    model = FakeModel(SIZES)
    beams = hr.beam_search(
        index.to(backend), lambda beams: array_of(backend, model(beams)), batch_size=1, beam_width=WIDTH, exclude=seen
    )
    (results,) = index.results(beams, exclude=seen)
    assert len(results)
    assert not mask[results.rows].any()


@pytest.mark.usefixtures("on_device")
def test_rows_on_a_device(backend, index):
    rows = np.array([5, 0, 299, 5], np.int32)
    there = index.constraint(rows=array_of(backend, rows))
    assert isinstance(there, DeviceSet)
    assert there == index.constraint(rows=rows)
    some = np.array([5, -1, 300, 0], np.int64)
    ignored = index.constraint(rows=array_of(backend, some), missing="ignore")
    assert ignored == index.constraint(rows=some, missing="ignore") == index.constraint(rows=rows[:2])
    assert len(index.constraint(rows=array_of(backend, rows[:0]))) == 0
    with pytest.raises(hr.ConstraintError, match=r"rows must be from 0 to 299.*got -1\. missing='ignore' skips"):
        index.constraint(rows=array_of(backend, some))
    for wrong in (rows.astype(np.float32), rows[None], rows > 0):
        with pytest.raises(hr.ConstraintError, match=r"rows must be integers \[R\] from 0 to 299.*; got "):
            index.constraint(rows=array_of(backend, wrong))


@pytest.mark.usefixtures("on_device")
def test_the_words_are_computed_once(backend, index, monkeypatch):
    device = index.constraint(array_of(backend, mask_of(index, 1)), order="index")
    device_index = index.to(backend)
    first = hr.prepare_constraints(device_index, BATCH, constraints=device)
    monkeypatch.setattr(prepare, "leaves_on_device", None)
    again = hr.prepare_constraints(device_index, BATCH, constraints=device.named("again"))
    assert first is not None
    assert again is not None
    assert again.levels[-1].alive is first.levels[-1].alive


@pytest.mark.usefixtures("on_device")
def test_combinations_stay_on_the_device(backend, index):
    masks = [mask_of(index, seed) for seed in (1, 2)]
    left, right = (index.constraint(array_of(backend, mask), order="index", name="set") for mask in masks)
    a, b = masks
    made = [left & right, left | right, left ^ right, left - right, ~left]
    expected = [a & b, a | b, a ^ b, a & ~b, ~a]
    for each, mask in zip(made, expected, strict=True):
        assert isinstance(each, DeviceSet)
        assert "_words" not in each.__dict__
        assert each.mask.tolist() == mask.tolist()
    assert made[0].name == "set & set"
    assert "_words" not in left.__dict__
    host = index.constraint(b, order="index")
    assert (left & host).mask.tolist() == (a & b).tolist()
    assert (host & left).mask.tolist() == (a & b).tolist()


@pytest.mark.usefixtures("on_device")
def test_a_set_keeps_its_items_when_the_mask_changes(index):
    torch = pytest.importorskip("torch")
    mask = torch.from_numpy(mask_of(index, 1))
    device = index.constraint(mask, order="index")
    mask[:] = True
    assert device.mask.tolist() == mask_of(index, 1).tolist()


@pytest.mark.usefixtures("on_device")
def test_a_set_is_pickled_as_one_of_the_host(backend, index):
    device = index.constraint(array_of(backend, mask_of(index, 1)), order="index", name="new")
    copy = pickle.loads(pickle.dumps(device))
    assert type(copy) is hr.ConstraintSet
    assert (copy.name, copy.mask.tolist()) == ("new", device.mask.tolist())


@pytest.mark.usefixtures("on_device")
def test_rejects_other_masks(backend, index):
    for mask in (np.zeros(299, bool), np.zeros((1, 300), bool), np.zeros(300, np.int32)):
        with pytest.raises(hr.ConstraintError, match=r"the mask must be bool \[300\].*; got "):
            index.constraint(array_of(backend, mask), order="index")
    with pytest.raises(hr.ConstraintError, match="this mask has no item ids"):
        index.constraint(array_of(backend, np.zeros(300, bool)))


def test_masks_in_memory_of_the_host_are_packed_there(backend, index):
    mask = array_of(backend, mask_of(index, 1))
    assert not is_on_device(mask)
    assert not is_on_device([True])
    assert not isinstance(index.constraint(mask, order="index"), DeviceSet)
