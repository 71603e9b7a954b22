"""The demo, with the packaged data and weights."""

import json
import sys

import pytest
from typer.testing import CliRunner

import hedgerow as hr
from hedgerow.cli.main import app

pytest.importorskip("torch")
pytest.importorskip("transformers")

from hedgerow.demo import run
from hedgerow.demo.films import DATA, load_catalog
from hedgerow.demo.run import run_demo
from hedgerow.demo.show import show_demo

pytest.importorskip("duckdb")
RULES = ["all", "since 2000", "French", "not seen"]


@pytest.fixture(scope="module")
def report():
    prompts = ["Recommend me a western", "Recommend me a science fiction film from the 1980s", "A French comedy"]
    return run_demo(prompts, since=2000, beam_width=50, k=10)


def test_shipped_data_is_small():
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 10_000_000


def test_catalog_has_all_films():
    catalog = load_catalog()
    assert (catalog.num_items, catalog.num_levels, catalog.codebook_sizes) == (17_472, 4, (256,) * 4)


def test_constrained_answers_are_films_and_some_free_ones_are_not(report):
    index = hr.build_index(load_catalog())
    assert sum(answer.free_without_film for answer in report.answers) > 0
    for answer in report.answers:
        assert answer.constrained_without_film == 0
        assert list(answer.films) == RULES
        assert [len(films) for films in answer.films.values()] == [10] * 4
        assert index.contains([film["sid"] for films in answer.films.values() for film in films]).all()
        for beam in answer.free:
            assert (beam.films > 0) == index.contains([beam.sid])[0]


def test_answers_fit_the_prompts(report):
    western, science_fiction, french = report.answers
    assert sum("western" in film["genres"] for film in western.films["all"]) >= 7
    assert sum("sci-fi" in film["genres"] for film in science_fiction.films["all"]) >= 7
    assert sum("comedy" in film["genres"] for film in french.films["all"]) >= 7


def test_answers_follow_the_rules_in_score_order(report):
    for answer in report.answers:
        every, recent, french, unseen = answer.films.values()
        assert all(film["year"] >= 2000 for film in recent)
        assert all("France" in (film["countries"] or []) or "French" in (film["languages"] or []) for film in french)
        assert not {film["item_id"] for film in unseen} & {film["item_id"] for film in every}
        for films in answer.films.values():
            scores = [film["score"] for film in films]
            assert scores == sorted(scores, reverse=True)
        # Without the best films, the next ones are first.
        assert every[-1]["score"] >= unseen[0]["score"]


def test_report_as_tables(report, capsys):
    from rich.console import Console

    show_demo(report, Console(width=100))
    shown = capsys.readouterr().out
    assert report.answers[0].films["all"][0]["title"][:20] in shown
    assert "beams match no film" in shown


def test_a_year_without_films():
    (answer,) = run_demo(["Recommend me a western"], since=2100, beam_width=5, k=3).answers
    assert answer.films["since 2100"] == []
    assert len(answer.films["French"]) == 3


def test_rejects_an_empty_prompt():
    with pytest.raises(hr.ArgumentError, match="prompt is empty"):
        run_demo(["  "], since=2000, beam_width=5, k=3)


def test_times_exclude_the_first_search_of_each_kind(monkeypatch):
    """The first search imports modules, so each prompt is timed after a search that is not."""
    calls, answer = [], run._answer
    monkeypatch.setattr(run, "_answer", lambda *given: calls.append(answer(*given)) or calls[-1])
    report = run_demo(["Recommend me a western", "A French comedy"], since=2000, beam_width=5, k=3)
    assert len(calls) == 3
    assert report.answers == calls[1:]
    for answered in report.answers:
        assert set(answered.milliseconds) == {"free", "constrained", "four rules"}


def test_command_prints_json():
    done = CliRunner().invoke(app, ["demo", "--prompt", "Recommend me a western", "-k", "2", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["films"] == 17_472
    assert report["sets"]["since 2000"] == 9_566
    assert [len(films) for films in report["answers"][0]["films"].values()] == [2] * 4


@pytest.mark.parametrize("package", ["torch", "transformers", "duckdb"])
def test_without_a_package_one_extra_is_named(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    done = CliRunner().invoke(app, ["demo"])
    assert str(done.exception) == (
        f"hedgerow demo needs the package {package}, which is not installed. Install it with: pip install "
        "'hedgerow[demo]', or in a clone: pip install '.[demo]'."
    )
