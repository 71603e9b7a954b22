"""Constraint sets from SQL: values, time zones, the clock, and limits of time and memory."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from datetime import UTC, date, datetime, timedelta
from importlib.metadata import version
from threading import Event, Thread, Timer

import numpy as np
import pyarrow as pa
import pytest

import hedgerow as hr
from hedgerow.constraints import sql

RELEASED = [date(2024, 1, 1), date(2024, 1, 5), date(2024, 1, 8), date(2024, 1, 9), date(2023, 12, 31)]


@pytest.fixture
def index():
    attributes = {
        "year": [2011, 1999, 2010, 2012, None],
        "genres": [["western"], ["western"], None, ["drama", "western"], []],
        "released": RELEASED,
        "seen": [1.0, float("nan"), 3.0, None, 5.0],
        "stamp": pa.array([datetime(2024, 1, day) for day in (1, 5, 8, 9, 3)], pa.timestamp("ns", tz="UTC")),
    }
    return hr.build_index(hr.Catalog([[5], [4], [3], [2], [1]], item_ids=list("abcde"), attributes=attributes))


def ids_of(items: hr.ConstraintSet) -> str:
    return "".join(sorted(items.index.item_ids.filter(items.mask).to_pylist()))


class TestWhere:
    @pytest.fixture(autouse=True)
    def _duckdb(self):
        pytest.importorskip("duckdb")

    @pytest.mark.parametrize(
        ("expression", "ids"),
        [
            ("released >= DATE '2024-01-05' AND list_contains(genres, 'western')", "bd"),
            ("year >= 2010", "acd"),
            ("NOT year >= 2010", "b"),
            ("year IS NULL", "e"),
            ("item_id IN ('a', 'e')", "ae"),
            ("year > (SELECT avg(year) FROM items)", "acd"),
            ("rank() OVER (ORDER BY released DESC) <= 2", "cd"),
            ("true -- all", "abcde"),
        ],
    )
    def test_items_for_which_an_expression_is_true(self, index, expression, ids):
        assert ids_of(index.where(expression)) == ids

    @pytest.mark.parametrize(
        ("expression", "message"),
        [
            ("year >=", "syntax error"),
            ("yaer > 3", r"yaer.*The columns are item_id \(string\), year \(int64\)"),
            ("year", "gives int64"),
            ("*", "columns"),
            ("true, false", "single expression"),
            ("true; SELECT true", "statement"),
            ("true) FROM items; COPY items TO '/tmp/out.csv'; SELECT (true", "syntax error"),
            ("true UNION ALL SELECT true", "set operation"),
            ("max(year) > 3", "GROUP BY"),
            ("unnest([true, false])", "10 rows for 5 items"),
            ("(SELECT count(*) FROM read_csv('/etc/passwd')) > 0", "disabled by configuration"),
            ("(SELECT content FROM read_text('/etc/hostname')) IS NULL", "disabled by configuration"),
            ("(SELECT count(*) FROM '/etc/passwd') > 0", "does not exist"),
            ("(SELECT count(*) FROM read_parquet('https://example.org/x')) > 0", "disabled by configuration"),
            ("(SELECT count(*) FROM outside) > 0", "outside does not exist"),
        ],
    )
    def test_rejects(self, index, expression, message):
        outside = pa.table({"x": [1]})
        with pytest.raises(hr.ConstraintError, match=message) as raised:
            index.where(expression)
        assert repr(expression) in str(raised.value)
        assert outside.num_rows == 1

    @pytest.mark.parametrize("expression", ["", "  ", None, 3])
    def test_rejects_values_that_are_no_expression(self, index, expression):
        with pytest.raises(hr.ConstraintError, match="expected an SQL expression"):
            index.where(expression)

    def test_caches_the_result(self, index):
        assert index.where("year > 2000")._words is index.where("year > 2000", name="new")._words
        assert repr(index.where("year > 2000", name="new")) == "ConstraintSet('new', 3 of 5 items)"

    def test_without_duckdb(self, index, monkeypatch):

        monkeypatch.setitem(sys.modules, "duckdb", None)
        with pytest.raises(hr.MissingDependencyError, match=r"pip install 'hedgerow\[sql\]'"):
            index.where("year > 1")

    def test_index_without_items_and_index_without_attributes(self):
        empty = hr.build_index(hr.Catalog(np.zeros((0, 1), int), codebook_sizes=2, attributes={"year": []}))
        assert empty.where("true").num_items == 0
        bare = hr.build_index(hr.Catalog([[0], [1]]))
        assert bare.where("item_id = 1").num_items == 1


def test_attributes_with_the_name_of_the_column_of_rows():
    attributes = {"hedgerow_row": [7, 8], "p": [5, 50]}
    index = hr.build_index(hr.Catalog([[0], [1]], codebook_sizes=2, item_ids=["a", "b"], attributes=attributes))
    assert index.where("p > 10").mask.tolist() == [False, True]
    assert index.where("hedgerow_row > 7").mask.tolist() == [False, True]


def test_rejects_attributes_that_sql_does_not_distinguish():
    index = hr.build_index(hr.Catalog([[0], [1]], codebook_sizes=2, attributes={"A": [7, 8], "a": [1, 2]}))
    with pytest.raises(hr.ConstraintError, match="does not distinguish the attributes 'A' and 'a'"):
        index.where("a > 7")


def test_rejects_an_expression_that_cannot_be_encoded(index):
    with pytest.raises(hr.ConstraintError, match="expected an SQL expression"):
        index.where("'\ud800' = 'a'")


@pytest.fixture
def moments():
    """Six moments around midnight of 2024-01-05, with and without a time zone."""
    hours = [datetime(2024, 1, 4, 12) + timedelta(hours=4 * step) for step in range(6)]
    attributes = {"utc": pa.array(hours, pa.timestamp("us", "UTC")), "plain": pa.array(hours, pa.timestamp("us"))}
    return hr.build_index(hr.Catalog([[row] for row in range(6)], item_ids=list("abcdef"), attributes=attributes))


class TestTime:
    @pytest.fixture(autouse=True)
    def _duckdb(self):
        pytest.importorskip("duckdb")

    @pytest.mark.parametrize("host", ["UTC", "America/New_York", "Asia/Tokyo"])
    def test_is_utc_whatever_the_host_has(self, moments, host, monkeypatch):
        monkeypatch.setenv("TZ", host)
        time.tzset()
        try:
            assert ids_of(moments.where("utc::DATE = DATE '2024-01-05'")) == "def"
            assert ids_of(moments.where("utc >= TIMESTAMP '2024-01-05 04:00'")) == "ef"
            assert ids_of(moments.where("utc = plain")) == "abcdef"
            assert ids_of(moments.where("hour(utc) = 12")) == "a"
        finally:
            monkeypatch.undo()
            time.tzset()

    def test_in_another_zone(self, moments):
        assert ids_of(moments.where("utc::DATE = DATE '2024-01-05'", timezone="Asia/Tokyo")) == "bcdef"
        assert ids_of(moments.where("utc::DATE = DATE '2024-01-05'", timezone="America/New_York")) == "f"
        assert ids_of(moments.where("plain::DATE = DATE '2024-01-05'", timezone="Asia/Tokyo")) == "def"
        # The cache does not mix zones.
        assert ids_of(moments.where("utc::DATE = DATE '2024-01-05'")) == "def"

    def test_text_in_double_quotes_is_a_column(self, index):
        with pytest.raises(hr.ConstraintError, match="text is in single quotes: brand = 'Ace'"):
            index.where('genres[1] = "western"')

    def test_nanoseconds_need_a_cast_in_duckdb_2_0_0(self, index):
        assert ids_of(index.where("stamp::TIMESTAMPTZ <= now()")) == "abcde"
        if version("duckdb") == "2.0.0":
            with pytest.raises(hr.ConstraintError, match="Timestamps of nanoseconds need a cast"):
                index.where("stamp <= now()")
        else:
            assert ids_of(index.where("stamp <= now()")) == "abcde"

    @pytest.mark.parametrize("zone", ["Mars/Base", "", None, 3, "UTC'; SELECT 1; --"])
    def test_rejects_zones(self, moments, zone):
        with pytest.raises(hr.ConstraintError, match="timezone must be the name of a time zone"):
            moments.where("true", timezone=zone)

    def test_rules_of_the_clock_are_never_cached(self):
        soon = datetime.now(UTC) + timedelta(seconds=1.5)
        index = hr.build_index(hr.Catalog([[0]], attributes={"utc": pa.array([soon], pa.timestamp("us", "UTC"))}))
        rules = (
            "utc <= now()",
            "utc <= CURRENT_TIMESTAMP",
            'utc <= "now"()',
            "utc < get_current_timestamp() -- always",
        )
        assert [index.where(rule).num_items for rule in rules] == [0] * 4
        time.sleep(max(0.0, (soon - datetime.now(UTC)).total_seconds()) + 0.01)
        assert [index.where(rule).num_items for rule in rules] == [1] * 4

    @pytest.mark.parametrize(
        ("expression", "is_constant"),
        [
            ("year > 2000 AND list_contains(genres, 'now playing')", False),
            ("year > 2000 AND list_contains(genres, 'western')", True),
            ("len(range(3)) = 3", True),
            ("date_diff('day', released, DATE '2024-01-09') < 7", True),
            ("released > current_date - 7", False),
            ("released > today() - INTERVAL 7 DAY", False),
            ("random() < 0.5", False),
            ("uuid() IS NULL", False),
            ("age(released) < INTERVAL 7 DAY", False),
            ("released > localtimestamp", False),
            ("released > current_localtimestamp()", False),
            ("ago(INTERVAL 1 DAY) < released", False),
            ("item_id IN (SELECT item_id FROM items USING SAMPLE 2)", False),
            ("(SELECT count(*) FROM duckdb_settings()) > 0", False),
        ],
    )
    def test_which_rules_are_cached(self, index, expression, is_constant):
        first = index.where(expression)
        assert (index.where(expression)._words is first._words) == is_constant


class TestLimits:
    @pytest.fixture(autouse=True)
    def _duckdb(self):
        pytest.importorskip("duckdb")

    @pytest.mark.parametrize(
        "expression",
        [
            "(WITH RECURSIVE r AS (SELECT 1 a UNION ALL SELECT a + 1 FROM r) SELECT count(*) FROM r) > 0",
            "(SELECT count(*) FROM range(100000000000)) > 0",
            "(SELECT count(*) FROM range(1000000) a, range(1000000) b) > 0",
            "sleep_ms(60000) IS NULL",
        ],
    )
    def test_time(self, index, expression):
        started = time.monotonic()
        with pytest.raises(hr.ConstraintError, match=r"did not finish within 0\.1 seconds.*pass a larger timeout"):
            index.where(expression, timeout=0.1)
        assert time.monotonic() - started < 5

    @pytest.mark.parametrize(
        "expression",
        [
            "len(range(100000000000)) > 0",
            "len(generate_series(0, 100000000 + year, 1)) > 0",
            "len(range(TIMESTAMP '1000-01-01', TIMESTAMP '9000-01-01', INTERVAL 1 SECOND)) > 0",
            "length(repeat('x', 2000000000)) > 0",
            "length('x'.repeat(2000000000 - year)) > 0",
            "length(repeat(repeat('x', 90000), 90000)) > 0",
            "length(rpad('x', 2000000000, 'y')) > 0",
            "length(format('{:>2000000000}', item_id)) > 0",
            "length(printf('%*d', 2000000000, year)) > 0",
            "len(list_resize(genres, 2000000000)) > 0",
            "bar(1, 0, 100, 1000000000) = ''",
        ],
    )
    def test_length_of_values(self, index, expression):
        with pytest.raises(hr.ConstraintError, match=r"gives more than 100,000 characters or values"):
            index.where(expression)

    def test_memory(self, index, monkeypatch):
        monkeypatch.setitem(sql.CONFIG, "memory_limit", "50MB")
        expression = "(SELECT list(a.range + b.range) FROM range(10000) a, range(10000) b)[1] > 0"
        with pytest.raises(hr.ConstraintError, match="it needs more than 2GB of memory"):
            index.where(expression)

    @pytest.mark.parametrize(
        "call", ["system.main.repeat('x', 3)", "main.\"repeat\"('x', 3)", "pg_catalog.lpad('', 3, '')"]
    )
    def test_limits_cannot_be_passed_by(self, index, call):
        with pytest.raises(hr.ConstraintError, match="names a schema; call the function without it"):
            index.where(f"{call} = 'xxx'")

    @pytest.mark.parametrize(
        "expression",
        [
            "repeat(item_id, 2) = 'aa'",
            "repeat('ab'::BLOB, 2) = 'abab'::BLOB AND item_id = 'a'",
            "repeat([1], 2) = [1, 1] AND item_id = 'a'",
            "year IN range(2011, 2012)",
            "generate_series(year, year + 4, 2) = [2011, 2013, 2015]",
            "len(range(released, DATE '2024-01-05', INTERVAL 1 DAY)) = 4",
            "lpad(item_id, 2, '.') = '.a' AND rpad(item_id, 2, '.') = 'a.'",
            "printf('%05d', year) = '02011' AND format('{}-{}', year, item_id) = '2011-a'",
            "list_resize(genres, 2, 'x') = ['western', 'x'] AND item_id = 'a'",
        ],
    )
    def test_limited_functions_give_their_values(self, index, expression):
        assert ids_of(index.where(expression)) == "a"

    def test_the_environment_cannot_be_read(self, index, monkeypatch):
        monkeypatch.setenv("HEDGEROW_SECRET", "secret")
        with pytest.raises(hr.ConstraintError, match="getenv does not exist"):
            index.where("getenv('HEDGEROW_SECRET') = 'secret'")
        for function in ("glob('/*')", "read_blob('/etc/hostname')", "duckdb_secrets()"):
            with pytest.raises(hr.ConstraintError, match="disabled by configuration"):
                index.where(f"(SELECT count(*) FROM {function}) > 0")

    def test_an_end_at_the_time_limit(self, index, monkeypatch):
        """The evaluation ends, and closes its connection, between the time limit and the interruption."""
        stop, connect, connections = sql._Query.stop, sql._Query._connection, []

        def stop_late(query):
            query.done.wait(10)
            sql.GATE.running[query] = connections[0]
            stop(query)
            sql.GATE.running.pop(query)

        monkeypatch.setattr(
            sql._Query, "_connection", lambda query: connections.append(connect(query)) or connections[0]
        )
        monkeypatch.setattr(sql._Query, "stop", stop_late)
        with pytest.raises(hr.ConstraintError, match="did not finish within 1e-09 seconds"):
            index.where("year > 1", timeout=1e-9)

    @pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "60", None, True])
    def test_rejects_timeouts(self, index, timeout):
        with pytest.raises(hr.ConstraintError, match="timeout must be a number of seconds above 0"):
            index.where("true", timeout=timeout)

    @pytest.mark.parametrize("timeout", [1e10, 1e300])
    def test_long_timeouts(self, index, timeout):
        assert ids_of(index.where("year = 1999", timeout=timeout)) == "b"

    @pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C to all processes of a console")
    @pytest.mark.parametrize("ends", ["interrupted", "daemon"])
    def test_the_process_ends_while_a_query_runs(self, ends):
        code = """
            import os, signal, sys, threading, time
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0]]))
            tables = ", ".join(f"(SELECT unnest(range(90000)) AS {name})" for name in "abc")
            query = f"EXISTS (SELECT 1 FROM {tables} WHERE a * b * c < 0)"
            if sys.argv[1] == "daemon":
                threading.Thread(target=index.where, args=(query,), daemon=True).start()
                time.sleep(0.5)
            else:
                threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
                try:
                    index.where(query)
                except KeyboardInterrupt:
                    print("interrupted")
        """
        words = [sys.executable, "-c", textwrap.dedent(code), ends]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, "interrupted\n" if ends == "interrupted" else "")

    def test_ctrl_c_is_obeyed(self, index):
        timer = Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            index.where("(SELECT count(*) FROM range(100000000000)) > 0")
        assert time.monotonic() - started < 5

    def test_a_query_that_is_stopped_before_it_begins(self, index, monkeypatch):
        """Ctrl-C while DuckDB connects, which takes long where it imports modules: the query never runs."""
        connect, connected, queries = sql._Query._connection, Event(), []

        def connect_late(query):
            queries.append(query)
            connected.wait(10)
            return connect(query)

        monkeypatch.setattr(sql._Query, "_connection", connect_late)
        timer = Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            index.where("(SELECT count(*) FROM range(100000000000)) > 0")
        connected.set()
        assert queries[0].done.wait(10)
        assert queries[0].table is None
        assert queries[0].error is None

    def test_several_threads(self, index):
        answers, start = [], Event()

        def ask(year):
            start.wait()
            answers.append(index.where(f"year >= {year}").num_items == sum(each >= year for each in YEARS))

        threads = [Thread(target=ask, args=(year,)) for year in (1999, 2010, 2011, 2012, 2013)]
        for thread in threads:
            thread.start()
        start.set()
        for thread in threads:
            thread.join()
        assert answers == [True] * 5


YEARS = [2011, 1999, 2010, 2012]
