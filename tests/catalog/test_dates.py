"""Dates that are not written as 2020-12-31: an option reads them, and text that looks like dates is named."""

import datetime as dt
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import hedgerow as hr
from hedgerow.catalog.dates import as_dates, format_of, text_date

DAYS = [dt.date(2020, 12, 31), dt.date(2021, 1, 2), None]


def csv(values, **options):
    rows = "".join(f'{row}-1,{row},"{value}"\n' for row, value in enumerate(values))
    return hr.Catalog.from_csv(io.BytesIO(f"sid,item_id,released\n{rows}".encode()), **options)


def jsonl(values, **options):
    lines = (json.dumps({"sid": [row, 1], "item_id": row, "released": value}) for row, value in enumerate(values))
    return hr.Catalog.from_json(io.BytesIO("\n".join(lines).encode()), **options)


@pytest.mark.parametrize(
    ("order", "values"),
    [
        ("dmy", ["31/12/2020", "2/1/2021", ""]),
        ("dmy", ["31.12.2020", "02.01.2021", ""]),
        ("mdy", ["12/31/2020", "1/2/2021", ""]),
        ("mdy", ["12-31-2020", "01-02-2021", ""]),
        ("ymd", ["2020/12/31", "2021/1/2", ""]),
        ("dmy", ["31/12/2020", "2021-01-02", ""]),
    ],
)
def test_an_order_reads_dates(order, values):
    column = csv(values, dates=order).attributes["released"]
    assert column.type == pa.date32()
    assert column.to_pylist() == DAYS
    column = jsonl([value or None for value in values], dates=order).attributes["released"]
    assert column.type == pa.date32()
    assert column.to_pylist() == DAYS


def test_times_of_day_become_timestamps():
    column = csv(["31/12/2020 9:05", "2/1/2021 23:59:01"], dates="dmy").attributes["released"]
    assert column.to_pylist() == [dt.datetime(2020, 12, 31, 9, 5), dt.datetime(2021, 1, 2, 23, 59, 1)]


def test_the_type_of_an_index_is_kept():
    column = csv(["2/1/2021"], dates="dmy", types={"released": pa.timestamp("us")}).attributes["released"]
    assert column.type == pa.timestamp("us")
    assert column.to_pylist() == [dt.datetime(2021, 1, 2)]
    with pytest.raises(hr.CatalogError, match=r"row 1 of column 'released': '13/13/2020'.*date32"):
        csv(["2/1/2021", "13/13/2020"], dates="dmy", types={"released": pa.date32()})
    with pytest.raises(hr.CatalogError, match=r"'31/12/2020' cannot be converted.*--dates"):
        csv(["31/12/2020"], types={"released": pa.date32()})


@pytest.mark.parametrize("read", [csv, jsonl])
@pytest.mark.parametrize(
    ("values", "advice"),
    [
        (["31/12/2020", "1/2/2021"], r"'released' looks like dates, for example '31/12/2020'.*dates='dmy'[^']*$"),
        (["12/31/2020", "1/2/2021"], r"dates='mdy'[^']*$"),
        (["1/2/2020", "3/4/2021"], r"dates='dmy'.*day is first.*dates='mdy'.*month is first"),
        (["2020/12/31", "2020/1/1"], r"dates='ymd'[^']*$"),
        ([*["2020-12-31"] * 19, "unknown"], r"Row 19 has 'unknown'"),
        (["31/12/2020", "12/31/2020"], r"no common order.*Row 1: '12/31/2020' is not a date in the order dmy"),
        ([*["31/12/2020"] * 19, "n/a"], r"Row 19 has 'n/a', which is not a date"),
        (["15/1/2024", "31/02/2024", "1/3/2024"], r"Row 1 has '31/02/2024', which is not a date"),
        (["31/02/2024", "15/1/2024"], r"Row 0 has '31/02/2024', which is not a date"),
        (["1/1/0000", "2/1/2020"], r"Row 0 has '1/1/0000', which is not a date"),
        (["31/12/20", "1/2/21"], r"Row 0 has '31/12/20'.*two digits do not say the century"),
        (["31/12/20 9:05", "1.2.21", "03-04-21"], r"Years of two digits"),
    ],
)
def test_text_that_looks_like_dates_is_a_warning(read, values, advice):
    with pytest.warns(UserWarning, match=advice):
        assert pa.types.is_string(read(values).attributes["released"].type)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (["12/31/2020", "1/2/2020"], r"Row 0: '12/31/2020' is not a date in the order dmy\. Pass dates='mdy'"),
        (["1/2/2020", "31/02/2024"], r"Row 1: '31/02/2024' is not a date in the order dmy\. Correct such values"),
        ([*["1/2/2020"] * 10, "n/a"], r"Row 10: 'n/a' is not a date in the order dmy\. Correct such values"),
        (["1/2/2020", "02/10/20"], r"Row 1: '02/10/20' is not a date in the order dmy\. Years of two digits"),
    ],
)
@pytest.mark.parametrize("read", [csv, jsonl])
def test_dates_that_an_order_does_not_read(read, values, problem):
    with pytest.warns(UserWarning, match=problem):
        assert read(values, dates="dmy").attributes["released"].to_pylist() == values


def test_years_of_two_digits_do_not_become_the_type_of_an_index():
    with pytest.raises(hr.CatalogError, match=r"row 0 of column 'released': '31/12/20'.*do not say the century"):
        csv(["31/12/20"], types={"released": pa.date32()})


def test_years_are_1_to_9999():
    assert csv(["0000-01-01", "2020-01-01"], text=["released"]).attributes["released"].type == pa.string()
    with pytest.warns(UserWarning, match="Row 0"):
        assert csv(["1/1/0000", "2/1/2020"], dates="dmy").attributes["released"].type == pa.string()
    assert csv(["0000-01-01", "2020-01-01"]).attributes["released"].type == pa.string()
    assert csv(["0000-01-01T00:00:00", "2020-01-01T00:00:00"]).attributes["released"].type == pa.string()
    # In UTC, it is in the year 10000.
    assert csv(["9999-12-31T23:00:00-05:00"]).attributes["released"].type == pa.string()
    edges = csv(["1/1/0001", "31/12/9999 23:59"], dates="dmy").attributes["released"].to_pylist()
    assert edges == [dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59)]


@pytest.mark.parametrize("order", [None, "dmy"])
def test_sids_and_ids_are_no_dates(order):
    for sid, item in (("1-2-2020", "1/2/2020"), ("2020-10-12", "2020-10-12")):
        catalog = hr.Catalog.from_csv(
            io.BytesIO(f"codes,id\n{sid},{item}\n".encode()), sid="codes", item_id="id", dates=order
        )
        assert catalog.item_ids.to_pylist() == [item]
        assert catalog.sids.tolist() == [[int(code) for code in sid.split("-")]]
        row = json.dumps([{"codes": sid, "id": item}]).encode()
        catalog = hr.Catalog.from_json(io.BytesIO(row), sid="codes", item_id="id", dates=order)
        assert catalog.item_ids.to_pylist() == [item]


def test_a_wrong_order_is_a_warning_and_stays_text():
    with pytest.warns(UserWarning, match="dates='mdy'"):
        assert csv(["12/31/2020"], dates="dmy").attributes["released"].to_pylist() == ["12/31/2020"]


@pytest.mark.parametrize(
    "values", [["a", "b"], ["1.2.3", "10-12-14"], ["1/2", "3/4"], ["", ""], ["31/12/2020", "a", "b"]]
)
def test_other_text_is_no_date(values):
    assert csv(values).attributes["released"].to_pylist() == [value or None for value in values]


def test_text_on_purpose_is_no_warning():
    assert csv(["31/12/2020"], text=["released"]).attributes["released"].to_pylist() == ["31/12/2020"]
    assert csv(["31/12/2020"], types={"released": pa.string()}).attribute_names == ("released",)
    assert csv(["31/12/2020"], attributes=[]).attribute_names == ()


def test_another_order_is_refused():
    for read in (csv, jsonl):
        with pytest.raises(hr.ArgumentError, match="dates must be one of dmy, mdy, ymd; got 'us'"):
            read(["31/12/2020"], dates="us")


def test_dates_of_several_files_have_one_type(tmp_path):
    for name, value in (("a", "31/12/2020"), ("b", "n/a")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"sid": [ord(name), 1], "released": value}))
    catalog = hr.Catalog.from_json(str(tmp_path / "*.jsonl"), dates="dmy")
    assert catalog.attributes["released"].to_pylist() == ["31/12/2020", "n/a"]


def test_as_dates_refuses_days_that_do_not_exist():
    assert as_dates(pa.chunked_array([["30/2/2020"]]), "dmy") is None
    assert as_dates(pa.chunked_array([pa.array([None], pa.string())]), "dmy") is None


@pytest.mark.parametrize(
    ("date", "written"),
    [
        ("31/12/20", "%d/%m/%y"),
        ("31/12/2020", "%d/%m/%Y"),
        ("12/31/2020", "%m/%d/%Y"),
        ("31.12.2020", "%d.%m.%Y"),
        ("2020/12/31", "%Y/%m/%d"),
    ],
)
def test_the_format_for_sql(date, written):
    assert format_of(date) == written


class TestRules:
    """What needs the order of time refuses dates as text, and says what to do."""

    @pytest.fixture
    def index(self, tmp_path):
        table = pa.table({"sid": [[0], [1], [1]], "item_id": ["a", "b", "c"], "title": ["x", "y", "z"]})
        texts = ["31/12/2020", "1/2/2021", None]
        iso = ["2020-12-31", "2021-02-01", None]
        table = table.append_column("released", pa.array(texts)).append_column("iso", pa.array(iso))
        pq.write_table(table, tmp_path / "items.parquet")
        return hr.build_index(hr.Catalog.from_parquet(tmp_path / "items.parquet", codebook_sizes=2))

    def test_newest(self, index):
        for name, value in (("released", "31/12/2020"), ("iso", "2020-12-31")):
            with pytest.raises(hr.ConstraintError, match=rf"dates as text, for example '{value}'.*--dates"):
                index.newest(name, days=7)
        with pytest.raises(hr.ConstraintError, match=r"holds string.*For other types use index\.where"):
            index.newest("title", days=7)

    @pytest.mark.parametrize(
        "expression",
        [
            "released > '2020-01-01'",
            "title = 'x' AND Released<='31/12/2020'",
            "'01/01/2020' < released",
            "\"released\" >= '2020'",
            "released BETWEEN '1/1/2020' AND '1/1/2021'",
            "released NOT  BETWEEN '1/1/2020' AND '1/1/2021'",
            "items.released > '2020'",
            "rank() OVER (ORDER BY released DESC) <= 2",
            "released = (SELECT max(released) FROM items)",
        ],
    )
    def test_comparisons(self, index, expression):
        pytest.importorskip("duckdb")
        with pytest.raises(hr.ConstraintError, match=r"'released' is text, for example '31/12/2020'.*try_strptime"):
            index.where(expression)

    @pytest.mark.parametrize(
        ("expression", "meant"),
        [
            ("iso > 2020-01-05", "2020-01-05"),
            ("iso > 2020-1-5", "2020-12-31"),
            ("2020/01/05 < iso", "2020-12-31"),
            ("iso = 05/01/2020", "2020-12-31"),
            ("iso > DATE '2020-01-01' AND iso < 2021-01-01", "2021-01-01"),
        ],
    )
    def test_dates_without_quotes_are_refused(self, index, expression, meant):
        pytest.importorskip("duckdb")
        with pytest.raises(hr.ConstraintError, match=rf"without quotes is arithmetic, not a date\. .* DATE '{meant}'"):
            index.where(expression)

    @pytest.mark.parametrize(
        ("expression", "ids"),
        [
            ("length(title) > 2020 - 01 - 01", []),
            ("title || '2020-01-01' = 'x2020-01-01' -- 2020-01-01", ["a"]),
            ("released = '31/12/2020'", ["a"]),
            ("released <> '31/12/2020'", ["b"]),
            ("'31/12/2020' <> released", ["b"]),
            ("released LIKE '%/2021'", ["b"]),
            ("try_strptime(released, '%d/%m/%Y') > DATE '2021-01-01'", ["b"]),
            ("title < 'y' OR 'released > 1' = title", ["a"]),
            ("iso > '2021-01-01'", ["b"]),
            ("title > 'x' -- released > 'x'", ["b", "c"]),
        ],
    )
    def test_other_expressions(self, index, expression, ids):
        pytest.importorskip("duckdb")
        found = index.where(expression)
        assert sorted(index.item_ids.filter(found.mask).to_pylist()) == ids

    def test_years_of_two_digits(self):
        pytest.importorskip("duckdb")
        table = pa.table({"sid": [[0], [1]], "added": ["31/12/20", "02/10/23"]})
        index = hr.build_index(hr.Catalog.from_arrow(table))
        with pytest.raises(
            hr.ConstraintError, match=r"'31/12/20'.*do not say the century.*'%d/%m/%y'\) .* 69 to 99 as"
        ):
            index.where("added > '01/01/23'")
        assert index.where("try_strptime(added, '%d/%m/%y') > DATE '2023-01-01'").num_items == 1
        with pytest.raises(hr.ConstraintError, match="do not say the century"):
            index.newest("added", days=7)

    def test_orders(self, index):
        beams = hr.beam_search(index, lambda _: np.array([[[0.4, 0.6]]]), batch_size=1, beam_width=2)
        assert len(index.results(beams, order_by="iso")[0]) == 3
        with pytest.raises(hr.ArgumentError, match="order_by: attribute 'released' is text, for example '31/12/2020'"):
            index.results(beams, order_by="released")
        with pytest.raises(hr.ArgumentError, match="sort_by: attribute 'released' is text"):
            index.results(beams)[0].sort_by("released")
        assert text_date(index.attributes["iso"]) is None
