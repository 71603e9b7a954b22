"""Constraint sets by themselves: what they are made of, how they combine, and their alive bits."""

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import BACKENDS, FakeModel, array_of, catalogs

import hedgerow as hr
from hedgerow.constraints import alive
from hedgerow.decode.alive import alive_on_device
from hedgerow.decode.ops import to_numpy
from hedgerow.index.bits import bits_before, packed, rank_of, unpacked

ATTRIBUTES = {"price": [90, 12, 30, 5], "stock": [True, True, False, True]}


@pytest.fixture
def index():
    """Four items, of which the last two share a SID; their order is not that of the catalog."""
    sids = [[3, 1, 5], [3, 1, 4], [0, 2, 2], [0, 2, 2]]
    return hr.build_index(hr.Catalog(sids, item_ids=["rope", "anvil", "lamp", "kite"], attributes=ATTRIBUTES))


def ids_of(items: hr.ConstraintSet) -> list:
    return items.index.item_ids.filter(items.mask).to_pylist()


class TestMadeOf:
    def test_a_mask_in_the_order_of_the_index(self, index):
        assert index.item_ids.to_pylist() == ["kite", "lamp", "anvil", "rope"]
        assert ids_of(index.constraint(np.asarray([True, False, False, True]))) == ["kite", "rope"]

    def test_columns_of_other_libraries(self, index):
        cheap = index.attributes.to_pandas()["price"] < 50
        import pyarrow.compute as pc

        arrow = pc.less(index.attributes["price"], 50)  # pyright: ignore[reportAttributeAccessIssue]
        torch = pytest.importorskip("torch")
        for mask in (cheap, arrow, arrow.combine_chunks(), torch.tensor(cheap.to_numpy()), cheap.tolist()):
            assert ids_of(index.constraint(mask)) == ["kite", "lamp", "anvil"]

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

    def test_a_function_of_the_attributes(self, index):
        made = index.constraint(lambda attributes: np.asarray(attributes["stock"]))
        assert ids_of(made) == ["kite", "anvil", "rope"]

    def test_sizes_and_names(self, index):
        made = index.constraint(ids=["kite", "lamp", "rope"], name="light")
        assert (made.num_items, made.num_sids) == (3, 2)
        assert repr(made) == "ConstraintSet('light', 3 of 4 items)"
        assert repr(index.constraint(ids=[])) == "ConstraintSet('ids', empty: no item)"

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
    def test_what_is_no_mask(self, index, mask):
        with pytest.raises(hr.ConstraintError, match="mask"):
            index.constraint(mask)

    def test_the_error_says_the_order_and_the_way_out(self, index):
        with pytest.raises(hr.ConstraintError, match=r"bool \[4\].*order of index.item_ids.*got bool \[3\].*ids=\["):
            index.constraint(np.ones(3, bool))

    def test_nulls_are_not_a_no(self, index):
        import pyarrow as pa

        with pytest.raises(hr.ConstraintError, match=r"1 nulls.*fill_null"):
            index.constraint(pa.array([True, None, False, True]))

    def test_unknown_ids_and_ids_of_another_type(self, index):
        with pytest.raises(hr.ConstraintError, match=r"1 of 2 ids are not in the index, the first of them 'sled'"):
            index.constraint(ids=["rope", "sled"])
        with pytest.raises(hr.ConstraintError, match="type of this index, string"):
            index.constraint(ids=[1, 2])
        with pytest.raises(hr.ConstraintError, match=r"a list of item ids; got 'rope'"):
            index.constraint(ids="rope")

    def test_a_function_that_raises(self, index):
        with pytest.raises(hr.ConstraintError, match=r"raised TypeError: .*an Arrow table with .*np\.asarray"):
            index.constraint(lambda attributes: attributes < 3)

    def test_both_or_neither(self, index):
        for arguments in ({}, {"mask": np.ones(4, bool), "ids": ["rope"]}):
            with pytest.raises(hr.ConstraintError, match="not both"):
                index.constraint(**arguments)


class TestCombined:
    def test_item_by_item_so_that_shared_sids_are_right(self, index):
        lamp, kite = index.constraint(ids=["lamp"], name="lamp"), index.constraint(ids=["kite"], name="kite")
        both = lamp & kite
        assert (both.num_items, both.num_sids) == (0, 0)
        assert ids_of(lamp | kite) == ["kite", "lamp"]
        assert ids_of(~lamp) == ["kite", "anvil", "rope"]
        assert (~lamp).num_sids == 3
        assert repr(~(lamp | kite)) == "ConstraintSet('~(lamp | kite)', 2 of 4 items)"

    def test_names_of_mixes_tell_their_parts(self, index):
        few, a, b = (index.constraint(ids=["lamp"], name=name) for name in ("few < 5", "a", "b"))
        mixes = (a & b, ~(a & b), ~few | a, (a & few) & ~b)
        assert [mix.name for mix in mixes] == ["a & b", "~(a & b)", "(~(few < 5)) | a", "(a & (few < 5)) & ~b"]

    def test_equal_sets_are_one_and_share_their_bits(self, index):
        mask = np.asarray([True, False, True, False])
        first, second = index.constraint(mask), ~index.constraint(~mask, name="others")
        assert first == second
        assert hash(first) == hash(second)
        assert first._alive is second._alive
        assert first != ~first

    def test_truth_is_not_said(self, index):
        with pytest.raises(hr.ConstraintError, match="num_items"):
            bool(index.constraint(ids=[]))

    def test_sets_of_two_indexes(self, index):
        other = hr.build_index(hr.Catalog([[0]]))
        with pytest.raises(hr.ConstraintError, match=r"belong to two index objects, .* loaded twice"):
            _ = index.constraint(ids=[]) & other.constraint(ids=[0])
        with pytest.raises(TypeError):
            _ = index.constraint(ids=[]) & 1

    def test_an_index_with_sets_can_be_pickled(self):
        index = hr.build_index(hr.Catalog([[0, 1], [1, 1]]))
        assert index.constraint(ids=[1]).num_sids == 1
        assert pickle.loads(pickle.dumps(index)).constraint(ids=[0]).num_sids == 1

    def test_what_is_remembered_has_bounds(self, index, monkeypatch):
        from hedgerow.constraints import sets as constraints

        monkeypatch.setattr(constraints, "REMEMBERED_BYTES", 40)
        sets = [index.constraint(packed_mask) for packed_mask in np.eye(4, dtype=bool)]
        assert [items._alive.leaves.tolist() for items in sets] == [[1], [1], [2], [4]]
        assert len(constraints.memory_of(index).alive) < 4


def naive_alive(index: hr.TrieIndex, mask: np.ndarray) -> list[set[int]]:
    """The nodes of each level that lead to an item of the mask, by walking each item's SID."""
    first, end = index.rows_of(np.arange(index.num_sids))
    sids = [sid for sid, begin, stop in zip(index.sids(), first, end, strict=True) if mask[begin:stop].any()]
    levels: list[set[int]] = [set() for _ in index.levels]
    for sid in sids:
        state = np.zeros(1, np.int64)
        for at, (level, code) in enumerate(zip(index.levels, sid, strict=True)):
            state = level.find(state, np.asarray([code]))
            levels[at].add(int(state[0]))
    return levels


def nodes_of(index: hr.TrieIndex, words: tuple[np.ndarray, ...]) -> list[set[int]]:
    """The alive nodes of each level, from the words."""
    levels = []
    for level, held in zip(index.levels, words, strict=True):
        if level.allowed is None:
            levels.append(set(np.flatnonzero(unpacked(held, level.num_nodes)).tolist()))
            continue
        parents, codes = np.nonzero(np.unpackbits(held.view(np.uint8), axis=1, bitorder="little"))
        levels.append(set(level.find(parents, codes.astype(level.codes.dtype)).tolist()))
    return levels


@pytest.mark.parametrize("loops", ["numpy", "numba"])
@settings(max_examples=150)
@given(catalog=catalogs(), dense=st.sampled_from(["auto", "all", "none"]), seed=st.integers(0, 2**32))
def test_alive_bits_are_those_of_the_paths(loops, catalog, dense, seed):
    index = hr.build_index(catalog, dense_levels={"auto": "auto", "all": range(catalog.num_levels), "none": ()}[dense])
    mask = np.random.default_rng(seed).random(catalog.num_items) < 0.4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alive, "NUMBA_FROM", 0 if loops == "numba" else 2**62)
        words = index.constraint(mask)._alive.levels
    assert nodes_of(index, words) == naive_alive(index, mask)


@pytest.mark.parametrize("loops", ["numpy", "numba"])
def test_forks_within_and_between_words(loops, monkeypatch):
    monkeypatch.setattr(alive, "NUMBA_FROM", 0 if loops == "numba" else 2**62)
    rng = np.random.default_rng(0)
    first = np.arange(3001)
    first[[5, 6, 31, 32, 64, 65, 66, 2999, 3000]] = [4, 4, 30, 31, 63, 63, 63, 2998, 2998]
    sids = np.stack([first, np.arange(3001), rng.integers(0, 9, 3001)], axis=1)
    index = hr.build_index(hr.Catalog(sids))
    assert [level.representation for level in index.levels][1:] == ["forked", "unary"]
    for share in (0.01, 0.5, 0.99):
        mask = rng.random(3001) < share
        assert nodes_of(index, index.constraint(mask)._alive.levels) == naive_alive(index, mask)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_pass_on_a_device_gives_the_same(backend):
    pytest.importorskip(backend)

    @settings(max_examples=10 if backend == "jax" else 60)
    @given(catalog=catalogs(), dense=st.sampled_from(["auto", "all", "none"]), seed=st.integers(0, 2**32))
    def check(catalog, dense, seed):
        levels = {"auto": "auto", "all": range(catalog.num_levels), "none": ()}[dense]
        index = hr.build_index(catalog, dense_levels=levels)
        made = index.constraint(np.random.default_rng(seed).random(catalog.num_items) < 0.4)._alive
        leaves = array_of(backend, made.leaves.view(np.int32).copy())
        found = alive_on_device(index.to(backend), leaves)
        for words, expected in zip(found, made.levels, strict=True):
            assert (to_numpy(words).view(np.uint32) == expected).all()

    check()


def test_ranks_of_bits():
    bits = np.random.default_rng(0).random(1000) < 0.3
    words = packed(bits)
    places = np.arange(1001)
    expected = np.concatenate([[0], np.cumsum(bits)])
    assert (rank_of(words, bits_before(words), places) == expected).all()


def test_one_bit_a_node():
    sids = np.random.default_rng(0).integers(0, 256, (50_000, 6))
    index = hr.build_index(hr.Catalog(sids, codebook_sizes=256))
    made = index.constraint(np.ones(50_000, bool))
    assert made.nbytes <= sum(index.nodes_per_level) / 8 * 1.05


class TestMixes:
    """What a batch's sets are stacked to on a device."""

    def setup_method(self):
        self.index = hr.build_index(hr.Catalog([[0, 1], [1, 0], [1, 1]]))
        self.sets = [self.index.constraint(ids=[item]) for item in range(3)]

    def stack(self, *sets) -> Any:
        prepared = hr.prepare_constraints(self.index, len(sets), constraints=list(sets))
        assert prepared is not None
        words = prepared.levels[-1]
        found = hr.beam_search(self.index, FakeModel((2, 2)), batch_size=len(sets), beam_width=3, constraints=prepared)
        expected = [3 if items is None else items.num_sids for items in sets]
        assert found.num_valid.tolist() == expected
        return words.alive

    def test_the_same_sets_in_other_places_are_the_same_stack(self):
        first, second, third = self.sets
        stack = self.stack(first, second, third, None)
        assert stack.shape[0] == 4
        assert self.stack(third, None, first, second) is stack
        assert self.stack(second, second, third, first) is stack

    def test_a_stack_that_has_them_all_will_do_where_it_is_of_the_same_size(self):
        first, second, third = self.sets
        every = first | second | third
        stack = self.stack(first, second, third, every)
        assert self.stack(every, first, second, None) is stack
        assert self.stack(first, second).shape[0] == 2
        assert self.stack(first).shape[0] == 1


class TestGiven:
    """What a batch is given, and what of it is refused."""

    def setup_method(self):
        self.index = hr.build_index(hr.Catalog([[0, 1], [1, 0], [1, 1]]))
        self.all = self.index.constraint(np.ones(3, bool))

    def search(self, index=None, **rules):
        model = FakeModel((2, 2))
        return hr.beam_search(index or self.index, model, batch_size=2, beam_width=3, **rules)

    def test_one_set_is_for_all(self):
        only = self.index.constraint(ids=[2])
        assert self.search(constraints=only).num_valid.tolist() == [1, 1]
        assert self.search(constraints=[only, None]).num_valid.tolist() == [1, 3]

    def test_nothing_given_is_nothing(self):
        assert hr.prepare_constraints(self.index, 2) is None
        assert hr.prepare_constraints(self.index, 2, constraints=[None, None], exclude=[[], None]) is None

    def test_ids_that_no_item_has_do_no_harm(self):
        assert self.search(exclude=[[77, 1], None]).num_valid.tolist() == [2, 3]

    def test_step_takes_sets_as_they_are(self):
        beams = hr.init_beams(self.index, 2)
        only = self.index.constraint(ids=[0])
        beams = hr.step(
            self.index, beams, np.zeros((2, 1, 2)), beam_width=3, constraints=[only, None], exclude=[None, [0]]
        )
        assert beams.codes[:, :, 0].tolist() == [[0, -1, -1], [1, -1, -1]]

    @pytest.mark.parametrize(
        ("rules", "message"),
        [
            ({"constraints": [None]}, "2 requests, but constraints for 1"),
            ({"constraints": np.ones(3, bool)}, "one set, or a list"),
            ({"constraints": [np.ones(3, bool), None]}, "request 0 must be a set of index.constraint"),
            ({"exclude": [[1]]}, "2 requests, but exclude has 1"),
            ({"exclude": [1, 2]}, r"got ids alone, \[1, 2\]. For one request: \[\[1, 2\]\]"),
            ({"exclude": np.arange(9)}, r"got ids alone, .*, \.\.\.\]"),
            ({"exclude": ["sku"]}, r"got ids alone, \['sku'\]. For one request: \[\['sku'\]\]"),
            ({"exclude": "ab"}, r"a list of item ids for each request; got 'ab'. For one request: \[\['ab'\]\]"),
            ({"exclude": [["a"], None]}, "type of this index, int64"),
        ],
    )
    def test_refused(self, rules, message):
        with pytest.raises(hr.ConstraintError, match=message):
            self.search(**rules)

    def test_sets_of_another_index(self):
        other = hr.build_index(hr.Catalog([[0, 1], [1, 0], [1, 1]]))
        with pytest.raises(hr.ConstraintError, match="set of another index"):
            self.search(other, constraints=self.all)

    def test_prepared_for_another_batch_or_with_exclude_beside_it(self):
        prepared = hr.prepare_constraints(self.index, 3, constraints=self.all)
        with pytest.raises(hr.ConstraintError, match="prepared for 3 requests and 2 levels; here are 2 and 2"):
            self.search(constraints=prepared)
        with pytest.raises(hr.ConstraintError, match=r"give exclude to hr.constrain"):
            self.search(constraints=prepared, exclude=[None, None])
        with pytest.raises(hr.ConstraintError, match="prepared for a device"):
            hr.prepare_constraints(self.index, 3, constraints=prepared)  # pyright: ignore

    def test_prepared_for_another_index(self):
        other = hr.build_index(hr.Catalog([[code // 40, code] for code in range(80)]))
        prepared = hr.prepare_constraints(other, 2, constraints=other.constraint(ids=[7]))
        with pytest.raises(hr.ConstraintError, match="prepared for another index"):
            self.search(constraints=prepared)

    def test_inside_of_jit_they_must_be_prepared(self):
        jax = pytest.importorskip("jax")

        @jax.jit
        def step(index, beams, logits):
            return hr.step(index, beams, logits, beam_width=2, constraints=self.all)

        device_index = self.index.to("jax")
        with pytest.raises(hr.ConstraintError, match="prepare the constraints outside"):
            step(device_index, hr.init_beams(device_index, 1), jax.numpy.zeros((1, 1, 2)))
