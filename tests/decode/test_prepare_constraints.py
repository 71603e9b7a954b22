"""Constraints of a batch on a device: the alive nodes, the stacks of sets, and the checks of a search."""

import gc
import pickle
from datetime import date
from typing import Any
from weakref import ref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import BACKENDS, FakeModel, array_of, catalogs, dense_levels_of

import hedgerow as hr
from hedgerow.decode.alive import alive_on_device
from hedgerow.decode.ops import to_numpy

pytestmark = pytest.mark.usefixtures("layout")


@pytest.mark.parametrize("backend", BACKENDS)
def test_alive_nodes_on_a_device_equal_those_on_the_host(backend):
    pytest.importorskip(backend)

    @settings(max_examples=10 if backend == "jax" else 60)
    @given(catalog=catalogs(), dense=st.sampled_from(["auto", "all", "none"]), seed=st.integers(0, 2**32))
    def check(catalog, dense, seed):
        index = hr.build_index(catalog, dense_levels=dense_levels_of(dense, catalog.num_levels))
        alive = index.constraint(np.random.default_rng(seed).random(catalog.num_items) < 0.4, order="index")._alive
        leaves = array_of(backend, alive.leaves.view(np.int32).copy())
        levels = alive_on_device(index.to(backend), leaves)
        for words, expected in zip(levels, alive.levels, strict=True):
            assert (to_numpy(words).view(np.uint32) == expected).all()

    check()


class TestStacks:
    """The stacked words of the sets of a batch."""

    def setup_method(self):
        self.index = hr.build_index(hr.Catalog([[0, 1], [1, 0], [1, 1]]))
        self.sets = [self.index.constraint(ids=[item]) for item in range(3)]

    def stack(self, *sets) -> Any:
        prepared = hr.prepare_constraints(self.index, len(sets), constraints=list(sets))
        assert prepared is not None
        beams = hr.beam_search(self.index, FakeModel((2, 2)), batch_size=len(sets), beam_width=3, constraints=prepared)
        expected = [3 if items is None else items.num_sids for items in sets]
        assert beams.num_valid.tolist() == expected
        return prepared.levels[-1].alive

    def test_the_same_sets_in_another_order_share_a_stack(self):
        first, second, third = self.sets
        stack = self.stack(first, second, third, None)
        assert stack.shape[0] == 4
        assert self.stack(third, None, first, second) is stack
        assert self.stack(second, second, third, first) is stack

    def test_a_stack_of_the_same_size_that_has_all_sets_is_used_again(self):
        first, second, third = self.sets
        union = first | second | third
        stack = self.stack(first, second, third, union)
        assert self.stack(union, first, second, None) is stack
        assert self.stack(first, second).shape[0] == 2
        assert self.stack(first).shape[0] == 1


class TestSearch:
    """Constraint sets and exclusions as arguments of a search."""

    def setup_method(self):
        self.index = hr.build_index(hr.Catalog([[0, 1], [1, 0], [1, 1]]))
        self.all = self.index.constraint(np.ones(3, bool), order="index")

    def search(self, index=None, **rules):
        model = FakeModel((2, 2))
        return hr.beam_search(index or self.index, model, batch_size=2, beam_width=3, **rules)

    def test_one_set_is_for_all_requests(self):
        items = self.index.constraint(ids=[2])
        assert self.search(constraints=items).num_valid.tolist() == [1, 1]
        assert self.search(constraints=[items, None]).num_valid.tolist() == [1, 3]

    def test_no_rules_are_none(self):
        assert hr.prepare_constraints(self.index, 2) is None
        assert hr.prepare_constraints(self.index, 2, constraints=[None, None], exclude=[[], None]) is None

    def test_ids_that_no_item_has_are_ignored(self):
        assert self.search(exclude=[[77, 1], None]).num_valid.tolist() == [2, 3]

    def test_step_prepares_sets(self):
        beams = hr.init_beams(self.index, 2)
        items = self.index.constraint(ids=[0])
        beams = hr.step(
            self.index, beams, np.zeros((2, 1, 2)), beam_width=3, constraints=[items, None], exclude=[None, [0]]
        )
        assert beams.codes[:, :, 0].tolist() == [[0, -1, -1], [1, -1, -1]]

    @pytest.mark.parametrize(
        ("rules", "message"),
        [
            ({"constraints": [None]}, "2 requests, but constraints for 1"),
            ({"exclude": [[1]]}, "2 requests, but exclude has 1"),
            ({"exclude": [["a"], None]}, "of type int64"),
        ],
    )
    def test_rejects_invalid_rules(self, rules, message):
        with pytest.raises(hr.ConstraintError, match=message):
            self.search(**rules)

    def test_rejects_sets_of_another_index(self):
        other = hr.build_index(hr.Catalog([[0, 1], [1, 0], [1, 1]]))
        with pytest.raises(hr.ConstraintError, match="set of another index"):
            self.search(other, constraints=self.all)

    def test_rejects_constraints_prepared_for_another_batch(self):
        prepared = hr.prepare_constraints(self.index, 3, constraints=self.all)
        with pytest.raises(
            hr.ConstraintError, match="for 3 requests and 2 levels; this search has 2 requests and 2 levels"
        ):
            self.search(constraints=prepared)

    def test_rejects_exclude_beside_prepared_constraints(self):
        prepared = hr.prepare_constraints(self.index, 2, constraints=self.all)
        with pytest.raises(hr.ConstraintError, match=r"Pass exclude to hr.prepare_constraints"):
            self.search(constraints=prepared, exclude=[None, None])

    def test_rejects_prepared_constraints_where_sets_are_needed(self):
        prepared = hr.prepare_constraints(self.index, 2, constraints=self.all)
        with pytest.raises(hr.ConstraintError, match="prepared already"):
            hr.prepare_constraints(self.index, 2, constraints=prepared)  # pyright: ignore
        with pytest.raises(hr.ConstraintError, match="prepared for a device"):
            self.index.results(self.search(), constraints=prepared)  # pyright: ignore

    def test_rejects_constraints_prepared_for_another_index(self):
        other = hr.build_index(hr.Catalog([[code // 40, code] for code in range(80)]))
        prepared = hr.prepare_constraints(other, 2, constraints=other.constraint(ids=[7]))
        with pytest.raises(hr.ConstraintError, match="prepared for another index"):
            self.search(constraints=prepared)

    @pytest.mark.parametrize("batch_size", [0, -1, 2.0, "2", None])
    def test_rejects_invalid_batch_sizes(self, batch_size):
        with pytest.raises(hr.ArgumentError, match="batch_size"):
            hr.prepare_constraints(self.index, batch_size, constraints=self.all)

    def test_constraints_must_be_prepared_outside_of_jit(self):
        jax = pytest.importorskip("jax")

        @jax.jit
        def step(index, beams, logits):
            return hr.step(index, beams, logits, beam_width=2, constraints=self.all)

        device_index = self.index.to("jax")
        with pytest.raises(hr.ConstraintError, match="Prepare the constraints outside"):
            step(device_index, hr.init_beams(device_index, 1), jax.numpy.zeros((1, 1, 2)))

    def test_moving_a_window_makes_a_new_set_of_the_same_index(self):
        released = [date(2024, 1, 1), date(2024, 1, 5), date(2024, 1, 8), date(2024, 1, 9), date(2023, 12, 31)]
        index = hr.build_index(hr.Catalog([[5], [4], [3], [2], [1]], attributes={"released": released}))
        for day, expected in ((1, 2), (5, 2), (9, 3)):
            window = index.newest("released", days=4, now=date(2024, 1, day))
            beams = hr.beam_search(index, FakeModel((6,)), batch_size=1, beam_width=5, constraints=window)
            assert beams.num_valid.tolist() == [window.num_sids] == [expected]


@pytest.mark.parametrize("ids", [int, "item {:03}".format])
def test_a_batch_excludes_what_each_request_excludes_alone(ids):
    """Requests with different sets, and with different numbers of excluded items, are prepared together."""
    rng = np.random.default_rng(1)
    index = hr.build_index(
        hr.Catalog(rng.integers(0, 3, (150, 4)), codebook_sizes=3, item_ids=list(map(ids, range(150))))
    )
    some, others = (index.constraint(rng.random(150) < share, order="index") for share in (0.3, 0.8))
    sets = [some, None, others, some, others, None]
    exclude = [[ids(item) for item in rng.integers(0, 160, count)] for count in (100, 140, 120, 0, 1, 150)]
    batch = hr.prepare_constraints(index, 6, constraints=sets, exclude=exclude)
    assert batch is not None
    model = FakeModel((3,) * 4)
    together = hr.beam_search(index, model, batch_size=6, beam_width=81, constraints=batch)
    for request in range(6):
        allowed = np.ones(150, bool) if sets[request] is None else sets[request].mask
        expected = index.constraint(allowed & ~np.isin(index.item_ids.to_pylist(), exclude[request]), order="index")
        count = int(together.num_valid[request])
        found = {tuple(sid) for sid in together.codes[request, :count].tolist()}
        assert found == {tuple(sid) for sid in index.sids_of(index.item_ids.filter(expected.mask)).tolist()}


class TestChecks:
    """How often rules are checked and ids looked up: once per call, not once per level."""

    @pytest.mark.parametrize("num_levels", [2, 6])
    def test_a_search_and_its_results_check_and_look_up_once_each(self, num_levels, monkeypatch):
        from hedgerow.constraints import requests
        from hedgerow.index import lookup

        sids = np.random.default_rng(0).integers(0, 2, (20, num_levels))
        index = hr.build_index(hr.Catalog(sids, codebook_sizes=2))
        calls = {"check": 0, "look up": 0}
        checked_sets, rows_of = requests._checked_sets, lookup.find_rows

        def counted_check(*arguments):
            calls["check"] += 1
            return checked_sets(*arguments)

        def counted_rows_of(*arguments):
            calls["look up"] += 1
            return rows_of(*arguments)

        rules: dict = {
            "constraints": index.constraint(np.arange(20) % 3 > 0, order="index"),
            "exclude": [[1, 2], None, [3], []],
        }
        monkeypatch.setattr(requests, "_checked_sets", counted_check)
        monkeypatch.setattr(lookup, "find_rows", counted_rows_of)
        beams = hr.beam_search(index, FakeModel((2,) * num_levels), batch_size=4, beam_width=5, **rules)
        assert calls == {"check": 1, "look up": 1}
        index.results(beams, **rules)
        assert calls == {"check": 2, "look up": 2}

    def test_steps_with_prepared_constraints_check_no_rules(self, monkeypatch):
        from hedgerow.constraints import requests

        index = hr.build_index(hr.Catalog([[0, 1], [1, 0], [1, 1]]))
        prepared = hr.prepare_constraints(index, 1, constraints=index.constraint(ids=[1]), exclude=[[0]])
        monkeypatch.setattr(requests, "_checked_sets", None)
        monkeypatch.setattr(requests, "_listed_rows", None)
        beams = hr.beam_search(index, FakeModel((2, 2)), batch_size=1, beam_width=3, constraints=prepared)
        assert beams.num_valid.tolist() == [1]


class TestOwner:
    """Constraints are refused by every index but the one that they are prepared for."""

    def search(self, index, **rules):
        device_index = index if isinstance(index, hr.DeviceIndex) else index.to("numpy")

        def logits(beams):
            return array_of(device_index.backend, np.zeros((*beams.states.shape, 3), np.float32))

        return hr.beam_search(device_index, logits, batch_size=1, beam_width=3, **rules)

    @pytest.fixture
    def indexes(self):
        sids = [[0, 1], [1, 0], [2, 2]]
        return [hr.build_index(hr.Catalog(sids, codebook_sizes=3, item_ids=list(ids))) for ids in ("abc", "zab")]

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_rejects_constraints_of_an_index_of_the_same_shape(self, indexes, backend):
        pytest.importorskip(backend)
        first, second = (index.to(backend) for index in indexes)
        every_rule: list[dict[str, Any]] = [{"exclude": [["a"]]}, {"constraints": indexes[0].constraint(ids=["a"])}]
        for rules in every_rule:
            prepared = hr.prepare_constraints(first, 1, **rules)
            with pytest.raises(hr.ConstraintError, match="prepared for another index"):
                self.search(second, constraints=prepared)
            expected = self.search(first, **rules).num_valid.tolist()
            assert self.search(first, constraints=prepared).num_valid.tolist() == expected
            assert self.search(indexes[0].to(backend), constraints=prepared).num_valid.tolist() == expected

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_rejects_constraints_of_another_backend(self, indexes, backend):
        pytest.importorskip(backend)
        index = indexes[0]
        every_rule: list[dict[str, Any]] = [{"exclude": [["a"]]}, {"constraints": index.constraint(ids=["a"])}]
        for rules in every_rule:
            prepared = hr.prepare_constraints(index.to(backend), 1, **rules)
            for other in BACKENDS:
                if other != backend:
                    pytest.importorskip(other)
                    with pytest.raises(hr.ConstraintError, match=f"the index is on the backend '{other}'"):
                        self.search(index.to(other), constraints=prepared)

    def test_copies_and_refilled_constraints(self, indexes):
        pytest.importorskip("torch")
        first, second = (index.to("torch") for index in indexes)
        prepared = hr.prepare_constraints(first, 1, exclude=[["a"]])
        assert prepared is not None
        static = prepared.copy()
        assert self.search(first, constraints=static).num_valid.tolist() == [2]
        with pytest.raises(hr.ConstraintError, match="prepared for another index"):
            self.search(second, constraints=static)
        static.refill(hr.prepare_constraints(second, 1, exclude=[["z"]]))
        assert self.search(second, constraints=static).num_valid.tolist() == [2]
        with pytest.raises(hr.ConstraintError, match="prepared for another index"):
            self.search(first, constraints=static)

    def test_rejects_constraints_from_before_a_refill(self, indexes):
        pytest.importorskip("torch")
        index = indexes[0].to("torch", capacity=hr.Capacity.of(indexes[0], headroom=2))
        prepared = hr.prepare_constraints(index, 1, exclude=[["a"]])
        index.refill(indexes[1])
        with pytest.raises(hr.ConstraintError, match=r"prepared for another index.*After DeviceIndex.refill"):
            self.search(index, constraints=prepared)

    def test_constraints_of_another_index_do_not_recompile_a_step(self, indexes):
        jax = pytest.importorskip("jax")
        traces = []

        @jax.jit
        def step(index, beams, logits, constraints):
            traces.append(1)
            return hr.step(index, beams, logits, beam_width=3, constraints=constraints)

        for index in indexes:
            device_index = index.to("jax")
            for item_id in "ab":
                prepared = hr.prepare_constraints(device_index, 1, exclude=[[item_id]])
                logits = array_of("jax", np.zeros((1, 1, 3), np.float32))
                step(device_index, hr.init_beams(device_index, 1), logits, prepared)
        assert len(traces) == 1

    def test_pickled_constraints(self, indexes):
        prepared = pickle.loads(pickle.dumps(hr.prepare_constraints(indexes[0], 1, exclude=[["a"]])))
        assert self.search(indexes[0], constraints=prepared).num_valid.tolist() == [2]

    def test_constraints_do_not_keep_an_index_alive(self, indexes):
        prepared = hr.prepare_constraints(indexes[0], 1, exclude=[["a"]])
        other, trie = indexes[1], ref(indexes[0])
        indexes.clear()
        gc.collect()
        assert trie() is None
        with pytest.raises(hr.ConstraintError, match="prepared for another index"):
            self.search(other, constraints=prepared)
