"""A step as a function of plain arrays, exported with the index and its constraints as inputs."""

import numpy as np
import pytest
from support import FakeModel, array_of

import hedgerow as hr
from hedgerow.decode.ops import to_numpy
from hedgerow.export import plain_step, step_arrays

SIZES, WIDTH = (4, 40, 9), 12
FIELDS = ("codes", "scores", "states", "parents")


def index_of(items: int, seed: int) -> hr.TrieIndex:
    rng = np.random.default_rng(seed)
    return hr.build_index(
        hr.Catalog(np.stack([rng.integers(0, size, items) for size in SIZES], axis=1), codebook_sizes=SIZES)
    )


@pytest.fixture(scope="module")
def versions():
    """An index, and another that fits into its capacity."""
    first, second = index_of(300, 0), index_of(320, 1)
    capacity = hr.Capacity.of(first, headroom=2)
    assert capacity.holds(second)
    return capacity, first, second


def rules_of(index, batch_size):
    rng = np.random.default_rng(batch_size)
    first, second = (index.constraint(rng.random(index.num_items) < 0.5, order="index") for _ in range(2))
    more = [None] * (batch_size - 2)
    return {"constraints": [first, second, *more], "exclude": [rng.integers(0, 300, 7).tolist(), None, *more]}


def fields_of(beams):
    return [getattr(beams, name) for name in FIELDS]


def exported_by_torch(step, *arguments):
    torch = pytest.importorskip("torch")

    class Step(torch.nn.Module):
        def forward(self, arrays, logits, codes, scores, states, parents):
            return step(arrays, logits, codes, scores, states, parents)

    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    of_requests = {"rows", "free", "dead_parents", "dead_slots"}
    shapes = ({name: batch if name in of_requests else None for name in arguments[0]}, *[batch] * 5)
    program = torch.export.export(Step(), arguments, dynamic_shapes=shapes)
    assert not program.constants
    return program.module()


def exported_by_jax(step, *arguments):
    jax = pytest.importorskip("jax")
    exported = jax.export.export(jax.jit(step), platforms=["cpu", "cuda", "tpu"])(*arguments)
    return jax.export.deserialize(exported.serialize()).call


@pytest.mark.parametrize("with_rules", [False, True])
@pytest.mark.parametrize(("backend", "export"), [("torch", exported_by_torch), ("jax", exported_by_jax)])
def test_a_program_runs_on_another_index_of_the_capacity(versions, backend, export, with_rules):
    pytest.importorskip(backend)
    capacity, *indexes = versions
    # An exported program of PyTorch takes any number of requests.
    batches = (2, 3 if backend == "torch" else 2)
    on_device = [index.to(backend, capacity=capacity) for index in indexes]
    prepared = [None, None]
    if with_rules:
        prepared = [
            hr.prepare_constraints(x, batch, **rules_of(index, batch))
            for x, index, batch in zip(on_device, indexes, batches, strict=True)
        ]
    model, beams = FakeModel(SIZES), [hr.init_beams(*of) for of in zip(on_device, batches, strict=True)]
    options = {"beam_width": WIDTH, "normalize": "allowed", "temperature": 2.0}
    for level in range(len(SIZES)):
        arrays = [step_arrays(index, level, rules) for index, rules in zip(on_device, prepared, strict=True)]
        logits = [array_of(backend, model(before)) for before in beams]
        program = export(plain_step(on_device[0], level, **options), arrays[0], logits[0], *fields_of(beams[0]))
        for number, (index, rules) in enumerate(zip(on_device, prepared, strict=True)):
            expected = hr.step(index, beams[number], logits[number], constraints=rules, kernel="array", **options)
            found = program(arrays[number], logits[number], *fields_of(beams[number]))
            for name, got in zip(FIELDS, found, strict=True):
                wanted = to_numpy(getattr(expected, name))
                np.testing.assert_allclose(to_numpy(got), wanted, rtol=1e-5, atol=1e-5, err_msg=name)
            beams[number] = expected


def test_rejects():
    torch = pytest.importorskip("torch")
    index = hr.build_index(hr.Catalog([[0, 1], [2, 0]]))
    for wrong in (index, index.to("numpy")):
        with pytest.raises(hr.ArgumentError, match="expected an index on PyTorch or JAX"):
            plain_step(wrong, 0, beam_width=2)  # pyright: ignore
        with pytest.raises(hr.ArgumentError, match="expected an index on PyTorch or JAX"):
            step_arrays(wrong, 0)  # pyright: ignore
    with pytest.raises(hr.ArgumentError, match="level must be an integer from 0 up to 1"):
        plain_step(index.to("torch"), 2, beam_width=2)
    device_index = index.to("torch")
    start = fields_of(hr.init_beams(device_index, 1))
    with pytest.raises(hr.ArgumentError, match="the step of level 1; the beams have 0 codes"):
        plain_step(device_index, 1, beam_width=2)(step_arrays(device_index, 1), torch.zeros(1, 1, 2), *start)
