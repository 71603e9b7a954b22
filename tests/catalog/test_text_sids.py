"""SIDs as text: tokens and numbers, in every form that published files have, on every road."""

import json
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from catalog_cases import error

import hedgerow as hr

CODES = [[2, 6, 4], [0, 10, 5]]
FORMS: dict[str, list[Any]] = {
    "lists of tokens": [["<a_2>", "<b_6>", "<c_4>"], ["<a_0>", "<b_10>", "<c_5>"]],
    "joined tokens": ["<a_2><b_6><c_4>", "<a_0><b_10><c_5>"],
    "tokens with spaces": ["<a_2> <b_6> <c_4>", "<a_0> <b_10> <c_5>"],
    "tokens of numbered levels": ["<|sid_0_2|><|sid_1_6|><|sid_2_4|>", "<|sid_0_0|><|sid_1_10|><|sid_2_5|>"],
    "tokens with delimiters": [
        "<|sid_begin|><s_a_2><s_b_6><s_c_4><|sid_end|>",
        "<|sid_begin|><s_a_0><s_b_10><s_c_5><|sid_end|>",
    ],
    "tokens in brackets": ["[a_2][b_6][c_4]", "[a_0][b_10][c_5]"],
    "a list of tokens as text": ["['<a_2>', '<b_6>', '<c_4>']", "['<a_0>', '<b_10>', '<c_5>']"],
    "dashes": ["2-6-4", "0-10-5"],
    "commas": ["2,6,4", "0,10,5"],
    "spaces": ["2 6 4", "0 10 5"],
    "underscores": ["2_6_4", "0_10_5"],
    "lists of digits": [["2", "6", "4"], ["0", "10", "5"]],
    "a list as text": ["[2, 6, 4]", "[0, 10, 5]"],
    "an array as text": ["[ 2  6  4]", "[ 0 10  5]"],
    "a tuple as text": ["(2, 6, 4)", "(0, 10, 5)"],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_codes_on_every_road(form, tmp_path):
    sids = FORMS[form]
    items = dict(zip(["x", "y"], sids, strict=True))
    (tmp_path / "map.json").write_text(json.dumps(items))
    (tmp_path / "rows.json").write_text(json.dumps([{"item_id": item, "sid": sid} for item, sid in items.items()]))
    roads = [
        hr.Catalog(sids, item_ids=["x", "y"]),
        hr.Catalog(pa.array(sids), item_ids=["x", "y"]),
        hr.Catalog(pl.Series(sids), item_ids=["x", "y"]),
        hr.Catalog.from_arrow(pa.table({"item_id": list(items), "sid": sids})),
        hr.Catalog.from_pandas(pd.DataFrame({"item_id": list(items), "sid": sids})),
        hr.Catalog.from_polars(pl.DataFrame({"item_id": list(items), "sid": sids})),
        hr.Catalog.from_json(items),
        hr.Catalog.from_json(tmp_path / "map.json"),
        hr.Catalog.from_json(tmp_path / "rows.json"),
    ]
    for catalog in roads:
        assert catalog.sids.tolist() == CODES
        assert catalog.item_ids.to_pylist() == ["x", "y"]


@pytest.mark.parametrize("form", [form for form in FORMS if not isinstance(FORMS[form][0], list)])
def test_text_forms_as_keys_of_a_mapping_of_items(form):
    first, second = FORMS[form]
    for keys in (None, "sid"):
        catalog = hr.Catalog.from_json({first: ["x", "y"], second: "z"}, keys=keys)
        assert catalog.sids.tolist() == [CODES[0], CODES[0], CODES[1]]
        assert catalog.item_ids.to_pylist() == ["x", "y", "z"]


def test_one_column_of_tokens_per_level():
    table = pa.table({"a": ["<a_2>", "<a_0>"], "b": ["<b_6>", "<b_10>"], "c": ["4", "5"]})
    assert hr.Catalog.from_arrow(table, sid=["a", "b", "c"]).sids.tolist() == CODES
    message = error(lambda: hr.Catalog.from_arrow(table, sid=["b", "a"]))
    assert "row 0 of column 'a', level 1" in message
    assert "order of the levels" in message


def test_ragged_text():
    expected = [[2, 6, 4], [3, 7, 5]]
    for sids in (["2-6-4", "3"], [["<a_2>", "<b_6>", "<c_4>"], ["<a_3>"]], ["<a_2><b_6><c_4>", "<a_3>"]):
        for catalog in (hr.Catalog(sids, ragged=True), hr.Catalog(pa.array(sids), ragged=True)):
            assert catalog.sids.tolist() == expected
            assert catalog.end_codes == (None, 7, 5)
    assert hr.Catalog(pa.array(["3", "2-6-4"]), ragged=True).sids.tolist() == expected[::-1]
    assert hr.Catalog.from_json({"x": "3", "y": "2,6,4"}, ragged=True).sids.tolist() == expected[::-1]


def test_keys_that_can_be_items_or_sids():
    dashed = {"978-3-16": [2, 6], "978-3-17": [0, 1]}
    assert hr.Catalog.from_json(dashed).item_ids.to_pylist() == ["978-3-16", "978-3-17"]
    assert hr.Catalog.from_json(dashed, keys="sid").sids.tolist() == [[978, 3, 16]] * 2 + [[978, 3, 17]] * 2
    assert hr.Catalog.from_json({"2-6": [7], "0-1": [9]}).item_ids.to_pylist() == [7, 9]
    assert hr.Catalog.from_json({"2-6": [7, 8], "0-1": [9]}).item_ids.to_pylist() == [7, 8, 9]
    assert hr.Catalog.from_json({"2-6": [7], "0-1": [9]}, keys="item").sids.tolist() == [[7], [9]]
    assert "keys must be one of" in error(lambda: hr.Catalog.from_json(dashed, keys="ids"))


@pytest.mark.parametrize(
    ("sids", "words"),
    [
        (["2-6", "2-x"], ["row 1", "'2-x'", '"2-6-4"']),
        (["2-6", [0, 1]], ["row 1", "[0, 1]"]),
        (["2-6", None], ["row 1", "None"]),
        (["12", "13"], ["row 0", "'12'"]),
        ([["<a_2>", "<b_6>"], ["<a_2>", "b6"]], ["row 1 of sids, level 1", "'b6'", "<a_2>", "TokenMap"]),
        ([["<a_2>", "<b_6>"], ["<b_2>", "<a_6>"]], ["row 1", "level 0", "'<b_2>'"]),
        (["<b_1><a_2>"], ["row 0", "level 1", "'<a_2>' follows", "'b'"]),
        (["<a_1><c_2>", "<a_1><b_2>"], ["row 1", "level 1", "'<b_2>'", "'c'"]),
        (["2-6", "2-6-4"], ["row 1", "has 3 codes", "row 0 has 2"]),
        (["0-2147483648"], ["row 0", "level 1", "2147483648"]),
        (["2,-1"], ["row 0", "level 1", "code -1"]),
        (["2.5", "3.5"], ["row 0", "'2.5'"]),
    ],
)
def test_error_names_row_and_level(sids, words):
    message = error(lambda: hr.Catalog(sids))
    for word in words:
        assert word in message


def test_errors_of_mappings_name_the_item():
    assert "item 'b'" in error(lambda: hr.Catalog.from_json({"a": "2-6", "b": "x"}))
    assert "item 'b'" in error(lambda: hr.Catalog.from_json({"a": [2, 6], "b": "2-6"}))
    assert "SID '2-6'" in error(lambda: hr.Catalog.from_json({"2-6": {"id": 5}}))
    assert "appears in rows 0 and 1" in error(lambda: hr.Catalog.from_json({"2-6": "x", "0-1": "x"}))
    assert "item_id: only for files" in error(lambda: hr.Catalog.from_json({"a": [1]}, item_id="id"))


def test_detects_the_same_codes_as_a_token_map():
    tokens = ["<a_2>", "<b_6>", "<c_4>", "<a_0>", "<b_10>", "<c_5>"]
    token_map = hr.TokenMap.detect({token: number for number, token in enumerate(tokens)})
    decoded = token_map.decode(np.arange(6).reshape(2, 3))
    assert decoded.tolist() == hr.Catalog([tokens[:3], tokens[3:]]).sids.tolist() == CODES
