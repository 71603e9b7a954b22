"""Constraint sets on the host: how they are made, how they combine, and their cache."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hedgerow as hr

ATTRIBUTES = {"price": [90, 12, 30, 5], "stock": [True, True, False, True]}


@pytest.fixture
def index():
    """Four items, of which the last two share a SID; their order is not that of the catalog."""
    sids = [[3, 1, 5], [3, 1, 4], [0, 2, 2], [0, 2, 2]]
    return hr.build_index(hr.Catalog(sids, item_ids=["rope", "anvil", "lamp", "kite"], attributes=ATTRIBUTES))


def ids_of(items: hr.ConstraintSet) -> list:
    return items.index.item_ids.filter(items.mask).to_pylist()


class TestCreation:
    def test_mask_in_the_order_of_the_index(self, index):
        assert index.item_ids.to_pylist() == ["kite", "lamp", "anvil", "rope"]
        assert ids_of(index.constraint(np.asarray([True, False, False, True]))) == ["kite", "rope"]

    def test_columns_of_other_libraries(self, index):
        cheap = index.attributes.to_pandas()["price"] < 50
        import pyarrow.compute as pc

        arrow = pc.less(index.attributes["price"], 50)  # pyright: ignore[reportAttributeAccessIssue]
        torch = pytest.importorskip("torch")
        for mask in (cheap, arrow, arrow.combine_chunks(), torch.tensor(cheap.to_numpy()), cheap.tolist()):
            assert ids_of(index.constraint(mask)) == ["kite", "lamp", "anvil"]

    def test_polars_column(self, index):
        polars = pytest.importorskip("polars")
        assert ids_of(index.constraint(polars.Series([True, False, True, False]))) == ["kite", "anvil"]
        with pytest.raises(hr.ConstraintError, match=r"2 nulls.*fill_null"):
            index.constraint(polars.Series([True, None, None, False]))

    def test_ids_in_any_order(self, index):
        for ids in (
            ["rope", "kite"],
            ("rope", "kite"),
            {"rope", "kite"},
            np.asarray(["rope", "kite"]),
            iter(["rope", "kite"]),
        ):
            assert ids_of(index.constraint(ids=ids)) == ["kite", "rope"]
        assert ids_of(index.constraint(ids=["rope", "sled"], missing="ignore")) == ["rope"]
        assert index.constraint(ids=[]).num_items == 0

    def test_function_of_the_attributes(self, index):
        in_stock = index.constraint(lambda attributes: np.asarray(attributes["stock"]))
        assert ids_of(in_stock) == ["kite", "anvil", "rope"]

    def test_sizes_and_names(self, index):
        light = index.constraint(ids=["kite", "lamp", "rope"], name="light")
        assert (light.num_items, light.num_sids) == (3, 2)
        assert repr(light) == "ConstraintSet('light', 3 of 4 items)"
        assert repr(index.constraint(ids=[])) == "ConstraintSet('ids', empty: no item)"
        assert light.named("small") == light
        assert light.named("small").name == "small"

    @pytest.mark.parametrize(
        "mask",
        [
            np.ones(3, bool),
            np.ones((4, 1), bool),
            np.ones(4, int),
            [True],
            np.ma.masked_array(np.ones(4, bool), np.ones(4, bool)),
        ],
    )
    def test_rejects_invalid_masks(self, index, mask):
        with pytest.raises(hr.ConstraintError, match="mask"):
            index.constraint(mask)

    def test_error_of_a_mask_states_order_and_alternatives(self, index):
        with pytest.raises(hr.ConstraintError, match=r"bool \[4\].*order of index.item_ids.*got bool \[3\].*ids=\["):
            index.constraint(np.ones(3, bool))

    def test_rejects_nulls(self, index):
        import pyarrow as pa

        with pytest.raises(hr.ConstraintError, match=r"1 nulls.*fill_null"):
            index.constraint(pa.array([True, None, False, True]))

    def test_rejects_unknown_ids_and_ids_of_another_type(self, index):
        with pytest.raises(hr.ConstraintError, match=r"1 of 2 ids are not in the index, the first is 'sled'.*'ignore'"):
            index.constraint(ids=["rope", "sled"])
        with pytest.raises(hr.ConstraintError, match="ids of this index, of type string"):
            index.constraint(ids=[1, 2])
        with pytest.raises(hr.ConstraintError, match=r"a list of item ids; got 'rope'"):
            index.constraint(ids="rope")

    def test_function_that_raises(self, index):
        with pytest.raises(hr.ConstraintError, match=r"raised TypeError: .*an Arrow table with .*np\.asarray"):
            index.constraint(lambda attributes: attributes < 3)

    def test_rejects_both_mask_and_ids_and_neither(self, index):
        for arguments in ({}, {"mask": np.ones(4, bool), "ids": ["rope"]}):
            with pytest.raises(hr.ConstraintError, match="not both"):
                index.constraint(**arguments)


class TestOperators:
    def test_combine_item_by_item_if_items_share_a_sid(self, index):
        lamp, kite = index.constraint(ids=["lamp"], name="lamp"), index.constraint(ids=["kite"], name="kite")
        both = lamp & kite
        assert (both.num_items, both.num_sids) == (0, 0)
        assert ids_of(lamp | kite) == ["kite", "lamp"]
        assert ids_of(~lamp) == ["kite", "anvil", "rope"]
        assert (~lamp).num_sids == 3
        assert repr(~(lamp | kite)) == "ConstraintSet('~(lamp | kite)', 2 of 4 items)"

    @settings(max_examples=60)
    @given(num_items=st.integers(0, 70), seed=st.integers(0, 2**32), text=st.booleans())
    def test_equal_python_sets(self, num_items, seed, text):
        rng = np.random.default_rng(seed)
        ids = [f"item {number}" if text else number * 3 for number in range(num_items)]
        sids = rng.integers(0, 5, (num_items, 3))
        index = hr.build_index(hr.Catalog(sids, codebook_sizes=5, item_ids=np.asarray(ids, str if text else int)))
        a, b = ({item for item in ids if rng.random() < share} for share in rng.random(2))
        first, second = (index.constraint(ids=list(items)) for items in (a, b))
        expected = {"&": a & b, "|": a | b, "-": a - b, "^": a ^ b, "~": set(ids) - a}
        combined = {"&": first & second, "|": first | second, "-": first - second, "^": first ^ second, "~": ~first}
        for sign, items in combined.items():
            assert set(ids_of(items)) == expected[sign]
            assert len(items) == items.num_items == len(expected[sign])
            assert {item for item in ids if item in items} == expected[sign]
        assert (first == second) == (a == b)

    @pytest.mark.parametrize("value", ["sled", None, 7, 1.5, ["rope"], {}, float("nan"), 2**70, object()])
    def test_values_that_are_no_id_are_not_in_a_set(self, index, value):
        assert value not in ~index.constraint(ids=[])

    def test_names_of_combinations(self, index):
        few, a, b = (index.constraint(ids=["lamp"], name=name) for name in ("few < 5", "a", "b"))
        combined = (a & b, ~(a & b), ~few | a, (a & few) & ~b, a - b, a ^ (a - b))
        assert [items.name for items in combined] == [
            "a & b",
            "~(a & b)",
            "(~(few < 5)) | a",
            "(a & (few < 5)) & ~b",
            "a - b",
            "a ^ (a - b)",
        ]

    def test_equal_sets_share_their_alive_nodes(self, index):
        mask = np.asarray([True, False, True, False])
        first, second = index.constraint(mask), ~index.constraint(~mask, name="others")
        assert first == second
        assert hash(first) == hash(second)
        assert first._alive is second._alive
        assert first != ~first

    def test_have_no_truth_value(self, index):
        with pytest.raises(hr.ConstraintError, match=r"no truth value.*len\(constraint_set\)"):
            bool(index.constraint(ids=[]))

    def test_rejects_sets_of_two_indexes(self, index):
        other = hr.build_index(hr.Catalog([[0]]))
        with pytest.raises(hr.ConstraintError, match=r"belong to two index objects.*Two loads of one file"):
            _ = index.constraint(ids=[]) & other.constraint(ids=[0])
        for operation in ("__and__", "__or__", "__sub__", "__xor__"):
            assert getattr(index.constraint(ids=[]), operation)(1) is NotImplemented
        with pytest.raises(TypeError):
            _ = index.constraint(ids=[]) & 1


class TestCache:
    def test_index_with_sets_can_be_pickled(self):
        index = hr.build_index(hr.Catalog([[0, 1], [1, 1]]))
        assert index.constraint(ids=[1]).num_sids == 1
        assert pickle.loads(pickle.dumps(index)).constraint(ids=[0]).num_sids == 1

    def test_bytes_of_alive_nodes_are_limited(self, index, monkeypatch):
        from hedgerow.constraints import cache

        set_cache = cache.cache_of(index)
        sets = [index.constraint(mask) for mask in np.eye(4, dtype=bool)]
        assert [items._alive.leaves.tolist() for items in sets] == [[1], [1], [2], [4]]
        assert len(set_cache._alive.values) == 4
        one = set_cache._alive.total // 4
        monkeypatch.setattr(cache, "MAX_BYTES", 2 * one + one // 2)
        assert index.constraint([True, True, False, False])._alive.leaves.tolist() == [1]
        assert len(set_cache._alive.values) == 2
        assert set_cache._alive.total == sum(set_cache._alive.bytes_of.values())
        # An entry beyond the limit is kept alone.
        monkeypatch.setattr(cache, "MAX_BYTES", 1)
        last = index.constraint([True, True, True, False])
        assert last._alive is index.constraint(last.mask)._alive
        assert len(set_cache._alive.values) == 1

    def test_bytes_are_those_that_the_process_uses(self):
        import tracemalloc

        from hedgerow.constraints import cache

        rng = np.random.default_rng(0)
        index = hr.build_index(hr.Catalog(rng.integers(0, 32, (500, 4)), codebook_sizes=32))
        device_index, set_cache = index.to("numpy"), cache.cache_of(index)

        def ask(count):
            for _ in range(count):
                hr.prepare_constraints(device_index, 1, constraints=index.constraint(rng.random(500) < 0.5))

        ask(20)
        tracemalloc.start()
        before, counted = tracemalloc.get_traced_memory()[0], set_cache._alive.total
        ask(300)
        used, counted = tracemalloc.get_traced_memory()[0] - before, set_cache._alive.total - counted
        tracemalloc.stop()
        assert 0.8 * used < counted < 2.5 * used

    def test_arrays_that_are_placed_later_count(self, index):
        from hedgerow.constraints import cache

        alive, entries = index.constraint(ids=[])._alive, cache.cache_of(index)._alive
        before = entries.total
        alive.placed["device"] = (np.zeros(1000, np.uint8),)
        assert index.constraint(ids=[])._alive is alive
        assert before + 1000 < entries.total < before + 2000

    def test_the_time_of_a_set_does_not_grow(self, monkeypatch):
        from hedgerow.constraints import cache

        measured = []
        monkeypatch.setattr(cache, "memory_of", lambda _: measured.append(1) or 1)
        entries = cache._Entries()
        for key in range(100):
            before = len(measured)
            entries.add(key, None, 1e9)
            assert len(measured) - before <= 2

    def test_least_recently_used_rules_are_dropped(self, index, monkeypatch):
        from hedgerow.constraints import cache

        monkeypatch.setattr(cache, "MAX_RULES", 2)
        set_cache, computed = cache.cache_of(index), []

        def rule(key):
            def compute():
                computed.append(key)
                return index.constraint(ids=[])

            return set_cache.rule(key, compute)

        for key in "abacab":
            rule(key)
        assert computed == ["a", "b", "c", "b"]
