"""The demo, on the data and weights that ship."""

import json

import pytest
from typer.testing import CliRunner

import hedgerow as hr
from hedgerow.cli.main import app

pytest.importorskip("torch")
pytest.importorskip("transformers")

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


def test_all_films_are_there():
    catalog = load_catalog()
    assert (catalog.num_items, catalog.num_levels, catalog.codebook_sizes) == (17_472, 4, (256,) * 4)


def test_constrained_answers_are_films_and_free_ones_are_not_all(report):
    index = hr.build_index(load_catalog())
    assert sum(answer.free_without_film for answer in report.answers) > 0
    for answer in report.answers:
        assert answer.constrained_without_film == 0
        assert list(answer.films) == RULES
        assert [len(films) for films in answer.films.values()] == [10] * 4
        assert index.contains([film["sid"] for films in answer.films.values() for film in films]).all()
        for named in answer.free:
            assert (named.films > 0) == index.contains([named.sid])[0]


def test_answers_have_what_was_asked_for(report):
    western, science_fiction, french = report.answers
    assert sum("western" in film["genres"] for film in western.films["all"]) >= 7
    assert sum("sci-fi" in film["genres"] for film in science_fiction.films["all"]) >= 7
    assert sum("comedy" in film["genres"] for film in french.films["all"]) >= 7


def test_each_rule_is_kept_and_each_answer_in_order(report):
    for answer in report.answers:
        every, recent, french, unseen = answer.films.values()
        assert all(film["year"] >= 2000 for film in recent)
        assert all("France" in (film["countries"] or []) or "French" in (film["languages"] or []) for film in french)
        assert not {film["item_id"] for film in unseen} & {film["item_id"] for film in every}
        for films in answer.films.values():
            scores = [film["score"] for film in films]
            assert scores == sorted(scores, reverse=True)
        # What is left when the best are gone comes next.
        assert every[-1]["score"] >= unseen[0]["score"]


def test_report_as_tables(report, capsys):
    from rich.console import Console

    show_demo(report, Console(width=100))
    shown = capsys.readouterr().out
    assert report.answers[0].films["all"][0]["title"][:20] in shown
    assert "name no film" in shown


def test_a_year_without_films_gives_no_films():
    (answer,) = run_demo(["Recommend me a western"], since=2100, beam_width=5, k=3).answers
    assert answer.films["since 2100"] == []
    assert len(answer.films["French"]) == 3


def test_an_empty_prompt_is_refused():
    with pytest.raises(hr.ArgumentError, match="prompt is empty"):
        run_demo(["  "], since=2000, beam_width=5, k=3)


def test_command_prints_json():
    done = CliRunner().invoke(app, ["demo", "--prompt", "Recommend me a western", "-k", "2", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["films"] == 17_472
    assert report["sets"]["since 2000"] == 9_566
    assert [len(films) for films in report["answers"][0]["films"].values()] == [2] * 4
