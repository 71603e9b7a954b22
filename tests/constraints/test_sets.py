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
        assert ids_of(index.constraint(np.asarray([True, False, False, True]), order="index")) == ["kite", "rope"]

    def test_columns_of_other_libraries(self, index):
        cheap = index.attributes.to_pandas()["price"] < 50
        import pyarrow.compute as pc

        arrow = pc.less(index.attributes["price"], 50)  # pyright: ignore[reportAttributeAccessIssue]
        torch = pytest.importorskip("torch")
        for mask in (cheap, arrow, arrow.combine_chunks(), torch.tensor(cheap.to_numpy()), cheap.tolist()):
            assert ids_of(index.constraint(mask, order="index")) == ["kite", "lamp", "anvil"]

    def test_polars_column(self, index):
        polars = pytest.importorskip("polars")
        assert ids_of(index.constraint(polars.Series([True, False, True, False]), order="index")) == ["kite", "anvil"]
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

    def test_an_array_without_ids_needs_an_order(self, index):
        """Of the caller's rows or of the index: an array does not say."""
        import pyarrow as pa

        pandas = pytest.importorskip("pandas")
        torch = pytest.importorskip("torch")
        polars = pytest.importorskip("polars")
        mask = [True, False, False, True]
        masks = (mask, np.array(mask), pa.array(mask), torch.tensor(mask), polars.Series(mask), pandas.Series(mask))
        for some in (*masks, pandas.Series(mask, index=[3, 1, 0, 2])):
            for take, error in ((index.constraint, hr.ConstraintError), (index.filter, hr.ArgumentError)):
                with pytest.raises(
                    error, match=r"no item ids.*index\.constraint\(ids=item_ids\[mask\]\).*order='index'"
                ):
                    take(some)
            assert ids_of(index.constraint(some, order="index")) == ["kite", "rope"]
            assert index.filter(some, order="index").item_ids.to_pylist() == ["kite", "rope"]
        with pytest.raises(hr.ConstraintError, match="order must be one of index, None; got 'catalog'"):
            index.constraint(mask, order="catalog")
        with pytest.raises(hr.ConstraintError, match="Omit order"):
            index.constraint(ids=["rope"], order="index")

    def test_masks_with_ids_in_any_order(self, index):
        import pyarrow as pa

        pandas = pytest.importorskip("pandas")
        polars = pytest.importorskip("polars")
        table = pa.table({"sku": ["rope", "anvil", "kite", "lamp"], "new": [True, False, True, False]})
        frame = table.to_pandas()
        labelled = frame.set_index("sku")
        for mask in (
            table,
            table.to_batches()[0],
            frame,
            labelled,
            labelled["new"],
            labelled["new"].rename_axis(None),
            labelled["new"].astype("boolean"),
            frame[["new", "sku"]].iloc[::-1],
            polars.from_arrow(table),
        ):
            assert ids_of(index.constraint(mask)) == ["kite", "rope"]
            assert index.filter(mask).item_ids.to_pylist() == ["kite", "rope"]
        more = pandas.concat([labelled["new"], pandas.Series([True], ["sled"])])
        with pytest.raises(hr.ConstraintError, match=r"1 of 5 ids of the mask are not in the index.*'sled'"):
            index.constraint(more)
        assert ids_of(index.constraint(more, missing="ignore")) == ["kite", "rope"]

    def test_masks_of_integer_ids(self):
        """A Series with integers as labels is aligned if the labels have a name; row numbers have none."""
        pandas = pytest.importorskip("pandas")
        numbered = hr.build_index(hr.Catalog([[2], [0], [1]], item_ids=[0, 2, 1]))
        mask = pandas.Series([True, False, False], pandas.Index([0, 2, 1], name="id"))
        assert ids_of(numbered.constraint(mask)) == [0]
        with pytest.raises(hr.ConstraintError, match="no item ids"):
            numbered.constraint(mask.rename_axis(None))

    def test_masks_with_ids_that_do_not_fit(self, index):
        import pyarrow as pa

        pandas = pytest.importorskip("pandas")
        skus = ["rope", "anvil", "kite", "lamp"]
        for columns, expected in (
            ({"sku": skus, "new": [1, 0, 1, 0]}, r"two columns.*got sku \(string\), new \(int64\)"),
            ({"sku": skus, "a": [True] * 4, "b": [True] * 4}, "two columns"),
            ({"sku": skus, "new": [True, None, None, True]}, "2 nulls"),
            ({"sku": skus[:3], "new": [True] * 3}, "no entry for item 'lamp', and needs one for each of the 4 items"),
            ({"sku": [*skus, "rope"], "new": [True] * 5}, "2 entries for item 'rope'"),
            ({"sku": [1, 2, 3, 4], "new": [True] * 4}, "the ids of the mask must be item ids of this index, of type"),
        ):
            with pytest.raises(hr.ConstraintError, match=expected):
                index.constraint(pa.table(columns))
        with pytest.raises(hr.ConstraintError, match="got values of type int64"):
            index.constraint(pandas.Series([1, 0, 1, 0], skus))
        with pytest.raises(hr.ConstraintError, match="1 nulls"):
            index.constraint(pandas.Series([True, None, True, False], skus, dtype="boolean"))

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
            with pytest.raises(hr.ConstraintError, match=r"either a mask .*, or ids, or rows"):
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
        first, second = index.constraint(mask, order="index"), ~index.constraint(~mask, order="index", name="others")
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
        sets = [index.constraint(mask, order="index") for mask in np.eye(4, dtype=bool)]
        assert [items._alive.leaves.tolist() for items in sets] == [[1], [1], [2], [4]]
        assert len(set_cache._alive.values) == 4
        one = set_cache._alive.total // 4
        monkeypatch.setattr(cache, "MAX_BYTES", 2 * one + one // 2)
        assert index.constraint([True, True, False, False], order="index")._alive.leaves.tolist() == [1]
        assert len(set_cache._alive.values) == 2
        assert set_cache._alive.total == sum(set_cache._alive.bytes_of.values())
        # An entry beyond the limit is kept alone.
        monkeypatch.setattr(cache, "MAX_BYTES", 1)
        last = index.constraint([True, True, True, False], order="index")
        assert last._alive is index.constraint(last.mask, order="index")._alive
        assert len(set_cache._alive.values) == 1

    def test_bytes_are_those_that_the_process_uses(self):
        import tracemalloc

        from hedgerow.constraints import cache

        rng = np.random.default_rng(0)
        index = hr.build_index(hr.Catalog(rng.integers(0, 32, (500, 4)), codebook_sizes=32))
        device_index, set_cache = index.to("numpy"), cache.cache_of(index)

        def ask(count):
            for _ in range(count):
                hr.prepare_constraints(
                    device_index, 1, constraints=index.constraint(rng.random(500) < 0.5, order="index")
                )

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
                return index.constraint(ids=[])._words

            return set_cache.rule(key, compute)

        for key in "abacab":
            rule(key)
        assert computed == ["a", "b", "c", "b"]
