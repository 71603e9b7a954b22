"""Lookup of item ids: ids of other types never match another item."""

from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import hedgerow as hr

FRACTIONS = [1.5, Decimal("1.5"), Fraction(3, 2), np.float32(1.5)]


def integer_index(dtype="int64"):
    return hr.build_index(hr.Catalog([[0, 1], [1, 0], [1, 1]], item_ids=np.asarray([1, 2, 300], dtype)))


@pytest.mark.parametrize("fraction", FRACTIONS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("others", [[], [2]], ids=["alone", "with an integer"])
def test_fractions_are_not_truncated(fraction, others):
    index = integer_index()
    ids = [*others, fraction]
    with pytest.raises(hr.ConstraintError, match="item ids of this index, of type int64"):
        index.constraint(ids=ids)
    with pytest.raises(hr.ConstraintError, match="exclude of request 0 must be item ids"):
        hr.prepare_constraints(index, 1, exclude=[ids])
    with pytest.raises(hr.ArgumentError, match="item_ids must be item ids"):
        index.sids_of(ids)
    with pytest.raises(hr.CatalogError, match="item ids to remove must be item ids"):
        hr.merge(index, removed=ids)
    assert fraction not in ~index.constraint(ids=[])


def test_fractions_remove_nothing_from_a_live_index(tmp_path):
    live = hr.LiveIndex.create(tmp_path / "live", integer_index())
    with pytest.raises(hr.CatalogError, match="must be item ids"):
        live.remove([1.5])
    assert live.version.num_items == 3


@pytest.mark.parametrize("ids", [[1.0], [Decimal(1)], np.asarray([1.0]), [np.int8(1)]])
def test_whole_numbers_of_other_types_match(ids):
    index = integer_index()
    assert index.constraint(ids=ids).mask.tolist() == (index.item_ids.to_numpy() == 1).tolist()
    assert ids[0] in index.constraint(ids=[1])


@pytest.mark.parametrize(
    "ids", [[datetime(2020, 1, 1, 23)], [date(2020, 1, 1), datetime(2020, 1, 1, 23)], pd.to_datetime(["2020-01-01T23"])]
)
def test_a_time_of_day_is_not_its_date(ids):
    index = hr.build_index(hr.Catalog([[0], [1]], item_ids=pa.array([date(2020, 1, 1), date(2020, 1, 2)])))
    with pytest.raises(hr.ConstraintError, match="of type date32"):
        index.constraint(ids=ids)
    assert ids[-1] not in ~index.constraint(ids=[])
    assert index.constraint(ids=[datetime(2020, 1, 1)]).num_items == 1


@pytest.mark.parametrize("kind", [list, np.asarray, pa.array, pd.Series])
def test_integers_beyond_the_type_of_the_ids_are_unknown(kind):
    index = integer_index("int16")
    ids = kind([70_000, 1, -70_000])
    assert index.constraint(ids=ids, missing="ignore").num_items == 1
    with pytest.raises(hr.ConstraintError, match=r"70000|of type int16"):
        index.constraint(ids=ids)
    beams = hr.beam_search(
        index, lambda beams: np.zeros((*beams.states.shape, 2)), batch_size=1, beam_width=3, exclude=[ids]
    )
    assert beams.num_valid.tolist() == [2]
    assert 70_000 not in ~index.constraint(ids=[])


@pytest.mark.parametrize(("dtype", "known"), [("int64", 1), ("uint64", 2**63 + 1)])
def test_integers_of_any_size_are_unknown(dtype, known):
    index = hr.build_index(hr.Catalog([[0], [1]], item_ids=np.asarray([known, 5], dtype)))
    for ids in ([known, -(2**70), 2**70, -1], np.asarray([known, 2**63 + 9], "uint64")):
        assert index.constraint(ids=ids, missing="ignore").num_items == 1


@pytest.mark.parametrize(
    "ids",
    [{"a": 1}, pd.DataFrame({"a": ["a"]}), pl.DataFrame({"a": ["a"]}), pa.table({"a": ["a"]})],
    ids=lambda ids: type(ids).__module__.split(".")[0],
)
def test_rejects_mappings_and_data_frames(ids):
    index = hr.build_index(hr.Catalog([[0], [1]], item_ids=["a", "b"]))
    with pytest.raises(hr.ConstraintError, match=r"ids must be a list of item ids; got a .*one of its columns"):
        index.constraint(ids=ids)
    with pytest.raises(hr.ConstraintError, match="exclude of request 0 must be a list of item ids"):
        hr.prepare_constraints(index, 1, exclude=[ids])
    with pytest.raises(hr.ArgumentError, match="must be a list of item ids"):
        hr.merge(index, removed=ids)


def test_rejects_bytearrays():
    with pytest.raises(hr.ConstraintError, match="ids must be a list of item ids"):
        integer_index().constraint(ids=bytearray(b"\x01"))


@pytest.mark.parametrize(
    ("item_ids", "others"),
    [
        (["1", "2"], [[1, 2], np.asarray([1, 2]), pa.array([1, 2]), pl.Series([1, 2]), pd.Series([1, 2])]),
        ([1, 2], [["1", "2"], np.asarray(["1", "2"]), pa.array(["1", "2"]), pl.Series(["1"]), pd.Series(["1"])]),
    ],
)
def test_text_and_numbers_of_the_same_digits_are_different_ids(item_ids, others):
    index = hr.build_index(hr.Catalog([[0], [1]], item_ids=item_ids))
    for ids in others:
        with pytest.raises(hr.ConstraintError, match="must be item ids of this index, of type"):
            hr.prepare_constraints(index, 1, exclude=[ids])
        with pytest.raises(hr.ConstraintError, match="must be item ids of this index, of type"):
            index.constraint(ids=ids, missing="ignore")
        with pytest.raises(hr.ConstraintError, match="must be item ids of this index, of type"):
            index.candidates([ids])
    for nothing in ([], np.zeros(0), pa.array([], pa.null()), pl.Series([])):
        assert index.constraint(ids=nothing).num_items == 0
