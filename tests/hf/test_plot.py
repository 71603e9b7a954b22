"""plot_beams: which beams survive, the position of names, and the file."""

import numpy as np
import pytest

import hedgerow as hr

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("matplotlib")

from matplotlib.figure import Figure
from tiny import CODES, TOKENS, index, model_of

from hedgerow.hf import Retriever
from hedgerow.hf.plot import levels_of, plot_beams


@pytest.fixture(scope="module")
def retriever():
    return Retriever(model_of("llama"), index(), TOKENS)


def beams(codes: list, scores: list, states: list, parents: list) -> hr.Beams:
    return hr.Beams(*(np.asarray([each]) for each in (codes, scores, states, parents)))


HISTORY = [
    beams([[4], [1], [7]], [-1.0, -2.0, -3.0], [1, 0, 2], [0, 0, 0]),
    beams([[1, 5], [4, 0], [1, 2]], [-2.5, -2.75, -3.0], [2, 3, 1], [1, 0, 1]),
    beams([[1, 5, 9], [1, 5, 3], [-1] * 3], [-4.0, -4.0, -np.inf], [5, 4, -1], [0, 0, 0]),
]


def test_beams_by_hand():
    first, second, third = levels_of(HISTORY)
    assert first.codes.tolist() == [[1], [4], [7]]
    assert first.scores.tolist() == [-2, -1, -3]
    assert first.survives.tolist() == [True, False, False]
    assert second.codes.tolist() == [[1, 2], [1, 5], [4, 0]]
    assert second.parents.tolist() == [0, 0, 1]
    assert second.survives.tolist() == [False, True, False]
    assert third.codes.tolist() == [[1, 5, 3], [1, 5, 9]]
    assert third.parents.tolist() == [1, 1]
    assert third.survives.all()
    assert third.ranks.tolist() == [1, 0]


@pytest.mark.parametrize("beam_width", [1, 6, 300])
def test_survivors_are_prefixes_of_results(retriever, beam_width):
    history = retriever.trace([5, 6, 7], beam_width=beam_width)
    levels = levels_of(history)
    found = [tuple(sid) for sid in index().results(history[-1])[0].sids.tolist()]
    for at, level in enumerate(levels):
        prefixes = [tuple(codes) for codes in level.codes.tolist()]
        assert prefixes == sorted(prefixes)
        assert (np.diff(level.heights) > 0).all()
        expected = [any(sid[: at + 1] == prefix for sid in found) for prefix in prefixes]
        assert level.survives.tolist() == expected
        if at:
            before = levels[at - 1].codes[level.parents]
            assert before.tolist() == level.codes[:, :at].tolist()


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_writes_a_figure(retriever, tmp_path, ending):
    path = tmp_path / f"beams.{ending}"
    plot_beams(retriever.trace([5, 6], beam_width=6), path, title="a prompt", names=["one", "two"], sid=(1, 2, 3))
    magic = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    assert path.read_bytes().startswith(magic)


def drawn(monkeypatch, history, tmp_path, **options):
    """The axes of a figure."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure.axes[0]))
    plot_beams(history, tmp_path / "beams.png", **options)
    return figures[0]


def test_names_are_beside_their_beams(monkeypatch, tmp_path):
    axes = drawn(monkeypatch, HISTORY, tmp_path, names=["best", "as good"])
    heights = {text.get_text(): text.xy[1] for text in axes.texts}
    assert heights == {"best": 0.75, "as good": 0.25}


def test_a_sid_is_marked_up_to_the_level_where_it_left(monkeypatch, tmp_path):
    red = "#c0392b"
    axes = drawn(monkeypatch, HISTORY, tmp_path, sid=(4, 0, 7))
    marked = [line for line in axes.lines if line.get_color() == red]
    assert [(list(line.get_xdata()), line.get_linestyle()) for line in marked] == [
        ([0, 1], "-"),
        ([1, 2], "-"),
        ([2, 3], "--"),
    ]
    assert [line.get_linestyle() for line in drawn(monkeypatch, HISTORY, tmp_path).lines] == ["-"] * 8
    found = drawn(monkeypatch, HISTORY, tmp_path, sid=(1, 5, 9))
    assert [line.get_linestyle() for line in found.lines if line.get_color() == red] == ["-"] * 3


def test_one_level_and_no_item(tmp_path):
    one = hr.build_index(hr.Catalog([[3], [7]], codebook_sizes=CODES))
    tokens = hr.TokenMap(TOKENS.token_ids[:1])
    plot_beams(Retriever(model_of("llama"), one, tokens).trace([5]), tmp_path / "one.png", sid=(9,))
    none = hr.build_index(hr.Catalog(np.zeros((0, 3), int), codebook_sizes=CODES))
    plot_beams(Retriever(model_of("llama"), none, TOKENS).trace([5]), tmp_path / "none.png", sid=(1, 2, 3))
    assert (tmp_path / "one.png").stat().st_size > 1000
    assert (tmp_path / "none.png").stat().st_size > 1000


def test_rejects_paths(tmp_path):
    with pytest.raises(hr.ArgumentError, match=r"must end in \.png, \.svg, \.pdf; got 'beams\.gif'"):
        plot_beams(HISTORY, tmp_path / "beams.gif")
    with pytest.raises(hr.ArgumentError, match="cannot be written"):
        plot_beams(HISTORY, tmp_path / "missing" / "beams.png")
