"""The scripts of the page that need no service: numbers, addresses, metrics and positions."""

import numpy as np
import pytest

HISTOGRAM = """# HELP seconds Time.
# TYPE seconds histogram
seconds_bucket{phase="total",le="0.1"} 10
seconds_bucket{phase="total",le="0.2"} 90
seconds_bucket{phase="total",le="+Inf"} 100
seconds_sum{phase="total"} 20.5
seconds_count{phase="total"} 100
seconds_bucket{phase="queue",le="0.1"} 7
other{a="x\\"y\\\\z",b="1"} 3 1700000000
"""


@pytest.fixture
def run(page):
    """Run JavaScript with the modules of the page as m."""
    page.open()

    def call(script, *arguments):
        names = ("format", "json", "layout", "prometheus", "state", "items")
        load = "".join(f"Object.assign(m, await import('/ui/{name}.js'));" for name in names)
        return page.run(f"const m = {{}}; {load} {script}", *arguments)

    return call


def test_quantiles_as_prometheus_computes_them(run):
    quantile = (
        "return m.quantileBetween(new Map(), m.parseMetrics(arguments[0]), 'seconds', arguments[1], { phase: 'total' })"
    )
    assert run(quantile, HISTOGRAM, 0.5) == {"value": pytest.approx(0.15), "isBound": False}
    assert run(quantile, HISTOGRAM, 0.05) == {"value": pytest.approx(0.05), "isBound": False}
    assert run(quantile, HISTOGRAM, 0.99) == {"value": 0.2, "isBound": True}
    mean = "return m.meanBetween(new Map(), m.parseMetrics(arguments[0]), 'seconds', { phase: 'total' })"
    assert run(mean, HISTOGRAM) == pytest.approx(0.205)


def test_only_what_two_readings_differ_by_counts(run):
    later = HISTOGRAM.replace("} 10\n", "} 14\n").replace("} 90\n", "} 94\n").replace("} 100\n", "} 104\n")
    script = """const [before, after] = arguments.map(m.parseMetrics);
    return [m.quantileBetween(before, after, 'seconds', 0.5, { phase: 'total' }),
            m.quantileBetween(before, before, 'seconds', 0.5, { phase: 'total' }),
            m.growth(before, after, 'seconds_count'), m.growth(before, after, 'missing')]"""
    assert run(script, HISTOGRAM, later) == [{"value": pytest.approx(0.05), "isBound": False}, None, 4, None]


def test_labels_are_unescaped(run):
    assert run("return m.parseMetrics(arguments[0]).get('other')", HISTOGRAM) == [
        {"labels": {"a": 'x"y\\z', "b": "1"}, "value": 3}
    ]


def test_integers_beyond_the_exact_ones_of_a_number_are_kept(run):
    text = '{"item_id":9223372036854775807,"score":-1.5,"big":1e300}'
    assert run("return m.stringify(m.parse(arguments[0]))", text) == text.replace("1e300", "1e+300")
    assert run("return String(m.parseId('9007199254740993', true))") == "9007199254740993"


def test_ids_have_the_type_of_the_index(run):
    assert run("return m.parseIds(' 12, a ,,-3', true)") == [12, "a", -3]
    assert run("return m.parseIds('12,a', false)") == ["12", "a"]


def test_the_address_gives_the_state_back(run):
    side = {"version": 3, "beam": 20, "sets": ["a&b", "c,d"], "where": "x = '#%'", "exclude": "1, 2"}
    empty = {"version": None, "beam": None, "sets": [], "where": "", "exclude": ""}
    state = {
        "prompt": "a film & <b>\nmore",
        "k": 5,
        "fields": ["a,b"],
        "compare": True,
        "sides": [side, side | {"version": 0}],
    }
    assert run("return m.fromHash('#' + m.toHash(arguments[0]))", state) == state
    alone = state | {"compare": False, "fields": None, "sides": [empty, empty]}
    assert run("return m.fromHash('#' + m.toHash(arguments[0]))", alone) == alone
    assert run("return m.fromHash('#k=-1&beam=x&version=y').sides[0]") == empty


@pytest.mark.parametrize("seed", range(5))
def test_places_keep_their_order_and_distance(run, seed):
    rng = np.random.default_rng(seed)
    wanted, weights = rng.uniform(-20, 120, 12), rng.uniform(0.05, 1, 12)
    places = run("return m.spread(arguments[0], arguments[1], 6, 100)", wanted.tolist(), weights.tolist())
    assert (np.diff(places) > 6 - 1e-9).all()
    assert min(places) >= -1e-9
    assert max(places) <= 100 + 1e-9
    assert run("return m.spread([10, 30, 70], [1, 1, 1], 6, 100)") == [10, 30, 70]
    assert run("return m.spread([50, 50, 50], [1, 1, 1], 6, 100)") == [44, 50, 56]
    assert run("return m.spread([-5, 50, 120], [1, 1, 1], 6, 100)") == [0, 50, 100]


def test_numbers_as_text(run):
    shown = run("return [1, 0.99999, 0.1234, 0.00123, 0.0000321, 1e-9, 0].map(m.percent)")
    assert shown == ["100 %", "> 99.9 %", "12.3 %", "0.12 %", "0.0032 %", "1.0e-7 %", "0 %"]
    assert run("return [0.00042, 0.034, 1.23, 45].map(m.duration)") == ["0.4 ms", "34 ms", "1.2 s", "45 s"]
    assert run("return [30, 90, 7200, 90000].map(m.age)") == ["30 s old", "1 minute old", "2 hours old", "1 day old"]
    assert run("return [-1.23456, -Infinity].map(m.score)") == ["\N{MINUS SIGN}1.235", "\N{MINUS SIGN}\N{INFINITY}"]


def test_prefixes_of_ragged_sids_end(run):
    assert run("return m.prefixText([3, 4, 9], [8, 8, 8])") == "3-4-end"
    assert run("return m.trimmed([3, -1, -1], [8, 8, 8])") == [3]
    assert run("return m.prefixText([7, 7, 7], [8, 8, 8])") == "7-7-7"
