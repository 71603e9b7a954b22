"""Pickled and copied indexes on devices, and logits processors, search as the originals do."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support import BACKENDS

import hedgerow as hr

COPIES = {"pickle": lambda each: pickle.loads(pickle.dumps(each)), "deepcopy": copy.deepcopy, "copy": copy.copy}


@pytest.fixture
def index():
    return hr.build_index(hr.Catalog(np.random.default_rng(0).integers(0, 16, (100, 3)), codebook_sizes=16))


def codes_of(device_index, constraints):
    beams = hr.init_beams(device_index, 1)
    for level in range(3):
        logits = np.random.default_rng(level).normal(size=(1, 5 if level else 1, 16)).astype(np.float32)
        beams = hr.step(device_index, beams, placed(device_index, logits), beam_width=5, constraints=constraints)
    return np.asarray(beams.codes).tolist()


def placed(device_index, array):
    if device_index.backend == "torch":
        import torch

        return torch.from_numpy(array)
    if device_index.backend == "jax":
        import jax.numpy as jnp

        return jnp.asarray(array)
    return array


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_copied_index_takes_constraints(index, backend, how):
    if backend != "numpy":
        pytest.importorskip(backend)
    device_index, items = index.to(backend), index.constraint(np.arange(100) % 3 == 0, order="index")
    other, of_other = COPIES[how]((device_index, items))
    expected = codes_of(device_index, hr.prepare_constraints(device_index, 1, constraints=items))
    assert codes_of(other, hr.prepare_constraints(other, 1, constraints=of_other)) == expected
    assert other.backend == backend


def test_a_set_of_the_original_does_not_fit_a_pickled_index(index):
    items, other = index.constraint(ids=[1]), COPIES["pickle"](index.to("numpy"))
    with pytest.raises(hr.ConstraintError, match="another index"):
        hr.prepare_constraints(other, 1, constraints=items)


@pytest.mark.parametrize("how", COPIES)
def test_a_copied_processor(index, how):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from hedgerow.hf import CatalogLogitsProcessor

    tokens = hr.TokenMap.from_offsets([0, 16, 32], codebook_sizes=16)
    items = index.constraint(np.arange(100) % 3 == 0, order="index")
    processor = CatalogLogitsProcessor(index, tokens, prompt_length=1, constraints=items, exclude=[[0]])
    ids, scores = torch.tensor([[50]]), torch.zeros(1, 60)
    expected = processor(ids, scores)
    other = COPIES[how](processor)
    assert torch.equal(other(ids, scores), expected)
    assert torch.isfinite(expected).sum() < len(index.allowed_codes())


def test_a_processor_in_several_threads(index):
    """The prepared constraints depend on the number of rows."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from hedgerow.hf import CatalogLogitsProcessor

    tokens = hr.TokenMap.from_offsets([0, 16, 32], codebook_sizes=16)
    items = index.constraint(np.arange(100) % 3 == 0, order="index")
    processor = CatalogLogitsProcessor(index, tokens, prompt_length=1, constraints=items)

    def mask(rows):
        return torch.isfinite(processor(torch.full((rows, 1), 50), torch.zeros(rows, 60))).sum().item() / rows

    expected = mask(1)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(mask, [1, 2, 3, 4] * 50)) == {expected}
