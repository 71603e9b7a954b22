"""The statistics of the training, and the warning about embeddings that differ from it."""

import json
import warnings

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import hedgerow as hr
from hedgerow.semantic import files

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(30, 32))
TURN = np.linalg.qr(RNG.normal(size=(32, 32)))[0]


def embeddings(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    vectors = CENTRES[rng.integers(0, 30, count)] + 0.35 * rng.normal(size=(count, 32))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def quantizer() -> hr.Quantizer:
    return hr.semantic_ids(embeddings(1500, 1), levels=2, codebook_sizes=32, deduplicate=True).quantizer


NEW = embeddings(200, 2)
OTHERS = {
    "8 times as long": 8 * NEW,
    "a quarter as long": NEW / 4,
    "without the mean": NEW - NEW.mean(0),
    "of another model": NEW @ TURN,
    "one, of another length": 8 * NEW[:1],
    "few, of another model": NEW[:3] @ TURN,
}


def test_statistics_are_those_of_the_training(quantizer):
    vectors = embeddings(1500, 1)
    residuals = vectors - quantizer.decode(quantizer.encode(vectors))
    errors = np.square(residuals).sum(1) / np.square(vectors).sum(1)
    training = quantizer.training
    assert training.items == 1500
    assert training.min_length == pytest.approx(1, abs=1e-5)
    assert training.max_length == pytest.approx(1, abs=1e-5)
    assert training.median_error == pytest.approx(np.median(errors), abs=1e-5)
    assert training.high_error == pytest.approx(np.quantile(errors, 0.99), abs=1e-5)
    assert training.max_error == pytest.approx(errors.max(), abs=1e-5)
    assert quantizer.deduplicating(None).training == training


@pytest.mark.parametrize("rows", [1, 3, 200])
def test_items_of_the_same_model_do_not_warn(quantizer, rows):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for start in range(0, 200, max(rows, 20)):
            quantizer.assign(NEW[start : start + rows])
        assert len(quantizer.assign(NEW[:0])) == 0


@pytest.mark.parametrize("what", OTHERS)
def test_other_embeddings_warn(quantizer, what):
    with pytest.warns(UserWarning, match="differ from those that the quantizer was trained on") as caught:
        quantizer.assign(OTHERS[what])
    assert caught[0].filename == __file__
    word = "median error" if "model" in what else "lengths"
    assert word in str(caught[0].message)


def test_statistics_are_saved(quantizer, tmp_path):
    quantizer.save(tmp_path / "q.safetensors")
    loaded = hr.Quantizer.load(tmp_path / "q.safetensors")
    assert loaded.training == quantizer.training
    with pytest.warns(UserWarning, match="lengths"):
        loaded.assign(3 * NEW)


def test_files_without_statistics_are_read(quantizer, tmp_path):
    """Files of version 1 that were written before statistics existed."""
    quantizer.save(tmp_path / "new.safetensors")
    with safe_open(tmp_path / "new.safetensors", framework="numpy") as file:
        facts = json.loads(file.metadata()["hedgerow"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert facts["version"] == 1
    del facts["sha256"], facts["training"]
    facts["sha256"] = files._digest(facts, tensors)
    save_file(tensors, tmp_path / "old.safetensors", {"hedgerow": json.dumps(facts)})
    old = hr.Quantizer.load(tmp_path / "old.safetensors")
    assert old.training is None
    assert old.assign(8 * NEW).sids.tolist()
    old.save(tmp_path / "again.safetensors")
    with safe_open(tmp_path / "again.safetensors", framework="numpy") as file:
        assert json.loads(file.metadata()["hedgerow"]) == facts


def test_few_training_items_are_no_measure():
    few = hr.semantic_ids(embeddings(40, 3), levels=2, codebook_sizes=8).quantizer
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        few.assign(8 * NEW)
        per_code = hr.semantic_ids(embeddings(300, 3), levels=2, codebook_sizes=64).quantizer
        per_code.assign(NEW @ TURN)


def test_invalid_statistics_in_a_file_are_refused(quantizer, tmp_path):
    quantizer.save(tmp_path / "q.safetensors")
    with safe_open(tmp_path / "q.safetensors", framework="numpy") as file:
        facts = json.loads(file.metadata()["hedgerow"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for training in ({"items": 3}, facts["training"] | {"max_error": -1.0}, facts["training"] | {"items": "x"}, 5):
        changed = {name: value for name, value in facts.items() if name != "sha256"} | {"training": training}
        changed["sha256"] = files._digest(changed, tensors)
        save_file(tensors, tmp_path / "bad.safetensors", {"hedgerow": json.dumps(changed)})
        with pytest.raises(hr.QuantizerFileError, match="does not contain a valid quantizer"):
            hr.Quantizer.load(tmp_path / "bad.safetensors")
