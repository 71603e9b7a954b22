"""The rules of a batch: the checks of constraint sets and exclusions, and the rules of some requests."""

import numpy as np
import pytest

import hedgerow as hr
from hedgerow.constraints.requests import batch_rules, of_one_request


@pytest.fixture
def index():
    return hr.build_index(hr.Catalog([[0, 1], [1, 0], [1, 1]]))


def listed(rules):
    """The set and the excluded rows of each request."""
    return [(rules.set_of(request), rules.excluded_by(request).tolist()) for request in range(rules.batch_size)]


def test_one_set_is_for_all_requests(index):
    items = index.constraint(ids=[2])
    rules = batch_rules(index, 2, items, None)
    assert rules.sets == (items, items)
    assert rules.excluded is None
    assert listed(rules) == [(items, []), (items, [])]


def test_no_rules(index):
    for constraints, exclude in ((None, None), ([None, None], [[], None]), (None, [[77], ()])):
        rules = batch_rules(index, 2, constraints, exclude)
        assert (rules.batch_size, rules.sets, rules.excluded) == (2, None, None)
        assert listed(rules) == [(None, []), (None, [])]


def test_ids_that_no_item_has_are_ignored(index):
    assert listed(batch_rules(index, 2, None, [[77, 1], None])) == [(None, [1]), (None, [])]


class TestTake:
    def test_requests_in_the_given_order(self, index):
        first, second = index.constraint(ids=[0]), index.constraint(ids=[1, 2])
        rules = batch_rules(index, 3, [first, None, second], [None, [2, 0], [1]])
        assert listed(rules.take([2, 0, 2])) == [(second, [1]), (first, []), (second, [1])]
        assert listed(rules.take(range(3))) == listed(rules)

    def test_rules_that_no_taken_request_has_are_none(self, index):
        rules = batch_rules(index, 3, [index.constraint(ids=[0]), None, None], [None, None, [1]])
        assert (rules.take([0]).sets, rules.take([0]).excluded) == ((index.constraint(ids=[0]),), None)
        assert rules.take([2]).sets is None
        assert rules.take([1]).sets is rules.take([1]).excluded is None
        assert rules.take([]).batch_size == 0

    def test_of_a_part(self, index):
        rules = batch_rules(index, 4, None, [[0], [1], [2], None])
        assert listed(rules.take([3, 1, 0]).take([2, 1])) == [(None, [0]), (None, [1])]

    def test_checks_and_looks_up_nothing_again(self, index, monkeypatch):
        rules = batch_rules(index, 2, index.constraint(ids=[0]), [[1], [2]])
        monkeypatch.setattr("hedgerow.constraints.requests.rows_of_lists", None)
        monkeypatch.setattr("hedgerow.constraints.requests._checked_sets", None)
        assert listed(rules.take([1])) == [(index.constraint(ids=[0]), [2])]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"constraints": [None]}, "2 requests, but constraints for 1"),
        ({"constraints": np.ones(3, bool)}, "one constraint set for all requests, or a list .* got ndarray"),
        ({"constraints": [np.ones(3, bool), None]}, "request 0 must be a constraint set or None; got ndarray"),
        ({"exclude": [[1]]}, "2 requests, but exclude has 1"),
        ({"exclude": [1, 2]}, r"got one list of ids, \[1, 2\]. For one request: exclude=\[\[1, 2\]\]"),
        ({"exclude": np.arange(9)}, r"got one list of ids, \[0, 1, 2, \.\.\.\]"),
        ({"exclude": np.asarray(3)}, r"one list of item ids per request; got array\(3\)"),
        ({"exclude": ["sku"]}, r"got one list of ids, \['sku'\]. For one request: exclude=\[\['sku'\]\]"),
        ({"exclude": "ab"}, r"one list of item ids per request; got 'ab'. For one request: exclude=\[\['ab'\]\]"),
        ({"exclude": [["a"], None]}, "exclude of request 0 must be item ids of this index, of type int64"),
    ],
)
def test_rejects(index, rules, message):
    with pytest.raises(hr.ConstraintError, match=message):
        batch_rules(index, 2, rules.get("constraints"), rules.get("exclude"))


def test_rejects_sets_of_another_index(index):
    other = hr.build_index(hr.Catalog([[0, 1], [1, 0], [1, 1]]))
    with pytest.raises(hr.ConstraintError, match=r"request 1: ConstraintSet.* a set of another index object"):
        batch_rules(index, 2, [None, other.constraint(ids=[1])], None)


@pytest.mark.parametrize("ids", [["a"], ["a", "b"], [], np.array(["a", "b"]), ("a",), {"a"}])
def test_the_list_of_one_request(ids):
    (only,) = of_one_request(ids, 1)
    assert only is ids
    assert of_one_request(ids, 2) is ids


@pytest.mark.parametrize("lists", [None, "a", [["a"]], [None], [["a"], "b"], np.array([["a"]]), [[], []]])
def test_lists_of_requests_and_other_values_stay(lists):
    assert of_one_request(lists, 1) is lists


class TestExcludedSets:
    def test_a_set_leaves_the_items_of_the_request(self, index):
        first, both = index.constraint(ids=[0], name="first"), index.constraint(ids=[0, 1], name="both")
        rules = batch_rules(index, 4, [both, None, both, None], [first, first, [0], None])
        assert [None if items is None else items.mask.tolist() for items in rules.sets or ()] == [
            [False, True, False],
            [False, True, True],
            [True, True, False],
            None,
        ]
        assert [rows for _, rows in listed(rules)] == [[], [], [0], []]
        first_set = rules.set_of(0)
        assert first_set is not None
        assert [part.name for part in first_set._parts] == ["both", "~first"]

    def test_one_set_is_for_all_requests(self, index):
        first, both = index.constraint(ids=[0]), index.constraint(ids=[0, 1])
        assert batch_rules(index, 2, None, first).sets == (~first, ~first)
        assert batch_rules(index, 2, [both, None], first).sets == (both & ~first, ~first)
        assert batch_rules(index, 1, None, of_one_request(first, 1)).sets == (~first,)
        assert batch_rules(index, 1, None, of_one_request([first], 1)).sets == (~first,)

    def test_searches_and_results_equal_those_with_ids(self, index):
        def logits(beams):
            return np.zeros((*beams.states.shape, 2))

        seen = index.constraint(ids=[1, 2])
        by_set, by_ids = (
            hr.beam_search(index, logits, batch_size=2, beam_width=4, exclude=exclude)
            for exclude in ([seen, None], [[1, 2], None])
        )
        assert (by_set.codes == by_ids.codes).all()
        found = index.results(by_set, exclude=[seen, None])
        assert [results.item_ids for results in found] == [[0], [0, 1, 2]]
        candidates = index.candidates([[0, 1], [1]], exclude=[seen, None])
        beams = hr.beam_search(candidates.to("numpy"), logits, batch_size=2, beam_width=4)
        assert [results.item_ids for results in candidates.results(beams)] == [[0], [1]]

    def test_rejects(self, index):
        first, other = index.constraint(ids=[0]), hr.build_index(hr.Catalog([[0, 1]])).constraint(ids=[0], name="sold")
        with pytest.raises(hr.ConstraintError, match=r"exclude of request 1: .*'sold'.* is a set of another index"):
            batch_rules(index, 2, None, [first, other])
        with pytest.raises(hr.ConstraintError, match="there are 2 requests, but exclude for 1"):
            batch_rules(index, 2, None, [first])


class TestRows:
    @pytest.mark.parametrize("rows", [[2, 0, 2], np.array([0, 2], np.uint8), (0, 2)])
    def test_of_any_order_and_type(self, index, rows):
        items = index.constraint(rows=rows)
        assert items.mask.tolist() == [True, False, True]
        assert items.name == "rows"
        assert len(index.constraint(rows=[])) == 0

    def test_rows_that_the_index_does_not_have(self, index):
        for row in (3, -1):
            with pytest.raises(hr.ConstraintError, match=f"rows must be from 0 to 2.*got {row}.*missing='ignore'"):
                index.constraint(rows=[0, row])
        assert index.constraint(rows=[0, 3, -1], missing="ignore").mask.tolist() == [True, False, False]

    @pytest.mark.parametrize("rows", [[0.5], [True, False, True], ["a"], [[0]]])
    def test_rejects_what_are_no_rows(self, index, rows):
        with pytest.raises(hr.ConstraintError, match=r"rows must be integers \[R\] from 0 to 2, positions in index"):
            index.constraint(rows=rows)

    def test_rejects_masked_rows(self, index):
        with pytest.raises(hr.ConstraintError, match="rows must not have masked entries"):
            index.constraint(rows=np.ma.array([0, 1], mask=[False, True]))

    def test_rejects_two_kinds(self, index):
        with pytest.raises(hr.ConstraintError, match="either a mask"):
            index.constraint(rows=[0], ids=[0])
        with pytest.raises(hr.ConstraintError, match="ids and rows have any order"):
            index.constraint(rows=[0], order="index")
