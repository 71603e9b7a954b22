"""Numbers that are written so that they stay text: a warning, and no comparisons by the order of text."""

import io
import json

import numpy as np
import pyarrow as pa
import pytest

import hedgerow as hr
from hedgerow.catalog.text_numbers import has_decimal_comma, text_number


def csv(values, **options):
    rows = "".join(f'{row}-1,{row},"{value}"\n' for row, value in enumerate(values))
    return hr.Catalog.from_csv(io.BytesIO(f"sid,item_id,price\n{rows}".encode()), **options)


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        (["114,70", "9,50"], r"'price' looks like numbers, but '114,70' keeps it text: use a decimal point \(row 0\)"),
        (["9.50", "114,70"], r"'114,70' keeps it text: use a decimal point \(row 1\)"),
        (["€ 114.70", "€ 9"], r"'€ 114\.70' keeps it text: write numbers as 1234\.50, without other signs"),
        (["114,70 EUR", "9,50 EUR"], r"'114,70 EUR'.*write numbers as 1234\.50"),
        (["1,114.70", "9.50"], r"'1,114\.70'.*write numbers as 1234\.50"),
        ([*["9.50"] * 19, "n/a"], r"'n/a' keeps it text: correct it, or leave it empty \(row 19\)"),
    ],
)
def test_numbers_that_stay_text_are_a_warning(values, advice):
    with pytest.warns(UserWarning, match=advice):
        assert csv(values).attributes["price"].to_pylist() == values


@pytest.mark.parametrize(
    "values",
    [
        ["01234", "98765"],
        ["12345", "K1A"],
        ["1.2.3", "1.10.2"],
        ["01.5", "2"],
        ["A", "1,5"],
        ["USD", "EUR"],
        ["SKU123", "ABC 124"],
    ],
)
def test_other_text_is_no_number(values):
    assert text_number(pa.chunked_array([values])) is None
    assert csv(values).attributes["price"].to_pylist() == values


def test_the_example_shows_the_decimal_mark():
    for values, example in ((["9.50", "1,114", "9,5"], "9,5"), (["9.50", "$9"], "$9"), (["9.50", "8.1"], "9.50")):
        assert text_number(pa.chunked_array([values])) == example


def test_text_on_purpose_is_no_warning():
    assert csv(["114,70"], text=["price"]).attributes["price"].to_pylist() == ["114,70"]
    assert csv(["114,70"], attributes=[]).attribute_names == ()


@pytest.mark.parametrize(
    ("number", "comma"),
    [("114,70", True), ("1.114,70", True), ("1.114,705 €", True), ("1,114", False), ("1,114.5", False)],
)
def test_decimal_commas(number, comma):
    assert has_decimal_comma(number) is comma


class TestRules:
    """Rules over numbers as text."""

    @pytest.fixture
    def index(self):
        pytest.importorskip("duckdb")
        columns = {
            "price": ["114,70", "9,50", None],
            "usd": ["$1,114.70", "$9.50", "$60"],
            "quoted": ["114.70", "9.50", "60"],
            "brand": ["Ace", "Bee", None],
            "stock": [1, 2, 3],
        }
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        lines = [json.dumps({"sid": [row], "item_id": row} | values) for row, values in enumerate(rows)]
        with pytest.warns(UserWarning, match="looks like numbers"):
            return hr.build_index(hr.Catalog.from_json(io.BytesIO("\n".join(lines).encode())))

    @pytest.mark.parametrize(
        "expression",
        [
            "price < '50'",
            "price < 50",
            "50 > price",
            "price BETWEEN 1 AND 50",
            "rank() OVER (ORDER BY price) < 2",
            "quoted < '50'",
            "usd >= '$50'",
        ],
    )
    def test_order(self, index, expression):
        with pytest.raises(
            hr.ConstraintError, match=r"is text, for example .*114.*order is not that of numbers.*TRY_CAST"
        ):
            index.where(expression)

    @pytest.mark.parametrize(
        ("expression", "held"),
        [
            ("price = 50", "'price' is text, for example '114,70', and cannot be compared with a number"),
            ("price IN (1, 2)", "'price' is text, for example '114,70', and cannot be compared with a number"),
            ("brand < 5", "'brand' is text, for example 'Ace', and cannot be compared with a number.*TRY_CAST"),
            ("brand <> 'x' AND price = 50.5", "'price' is text, for example '114,70', and cannot"),
            ("price * 2 = 4", "'price' is text, for example '114,70', and cannot be used as a number.*TRY_CAST"),
            ("round(usd) = 4", "'usd' is text, for example '.1,114.70', and cannot be used as a number"),
            ("brand = stock", "'brand' is text, for example 'Ace', and cannot be compared with a number"),
        ],
    )
    def test_text_beside_a_number(self, index, expression, held):
        with pytest.raises(hr.ConstraintError, match=held) as caught:
            index.where(expression)
        assert "Binder Error" not in str(caught.value)

    def test_other_errors_of_functions_stay(self, index):
        with pytest.raises(hr.ConstraintError, match="No function matches"):
            index.where("round(brand) = 4")

    def test_the_way_out(self, index):
        for name, ids in (("price", [1]), ("usd", [1]), ("quoted", [1])):
            with pytest.raises(hr.ConstraintError) as caught:
                index.where(f"{name} < '50'")
            advice = str(caught.value).split("convert the column: ")[1].split(". The columns")[0]
            assert index.item_ids.filter(index.where(advice).mask).to_pylist() == ids

    @pytest.mark.parametrize(("expression", "ids"), [("price = '9,50'", [1]), ("brand < 'B'", [0]), ("stock < 2", [0])])
    def test_other_expressions(self, index, expression, ids):
        assert index.item_ids.filter(index.where(expression).mask).to_pylist() == ids

    def test_order_by(self, index):
        beams = hr.beam_search(index, lambda _: np.zeros((1, 1, 3)), batch_size=1, beam_width=3)
        with pytest.raises(hr.ArgumentError, match="order_by: attribute 'price' is text, for example '114,70'"):
            index.results(beams, order_by="price")
