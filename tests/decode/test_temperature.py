"""The temperature of a search: every kernel against the oracle, which divides the logits by it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ragged import Ragged, logits_and_end
from support import BACKENDS, KERNELS, FakeModel, array_of, catalogs, dense_levels_of, require, search, stepper

import hedgerow as hr
from hedgerow.decode.ops import to_numpy
from hedgerow.decode.oracle import oracle_search, oracle_step

INF, NAN = float("inf"), float("nan")
SIDS = [(0, 0), (0, 2), (1, 1), (2, 2)]
LEAST = float(np.finfo(np.float32).min)


def small_index(dense="auto"):
    return hr.build_index(hr.Catalog(SIDS, codebook_sizes=4), dense_levels=dense_levels_of(dense, 2))


def assert_equals(beams, request, expected):
    live = len(expected)
    assert to_numpy(beams.num_valid)[request] == live
    scores = to_numpy(beams.scores)[request, :live]
    np.testing.assert_allclose(scores, [score for _, score in expected], rtol=1e-5, atol=1e-5)
    codes = to_numpy(beams.codes)[request, :live]
    assert sorted(map(tuple, codes.tolist())) == sorted(prefix for prefix, _ in expected)


def assert_search_equals_oracle(catalog, kernel, beam_width, temperature, normalize, dense):
    index = hr.build_index(catalog, dense_levels=dense_levels_of(dense, catalog.num_levels))
    model = FakeModel(catalog.codebook_sizes)
    options: Any = {"beam_width": beam_width, "temperature": temperature, "normalize": normalize}
    beams = search(index, kernel, model, batch_size=2, **options)
    sids = list(map(tuple, catalog.sids.tolist()))
    for request in range(2):
        logits_of = model.logits_of(request)
        expected = oracle_search(
            sids, logits_of, catalog.num_levels, beam_width, normalize, temperature=float(temperature)
        )
        assert_equals(beams, request, expected)


@pytest.mark.parametrize("kernel", KERNELS)
def test_step_and_search_equal_the_oracle(kernel):
    require(kernel)

    # JAX compiles each shape and temperature.
    @settings(max_examples=5 if kernel.startswith("jax") else 60)
    @given(
        catalog=catalogs(),
        beam_width=st.sampled_from([1, 3, 70]),
        temperature=st.sampled_from([0.05, 0.5, 1, 1.7, np.float32(3), 100]),
        normalize=st.sampled_from(["codes", "allowed"]),
        dense=st.sampled_from(["auto", "all", "none"]),
    )
    def check(catalog, beam_width, temperature, normalize, dense):
        assert_search_equals_oracle(catalog, kernel, beam_width, temperature, normalize, dense)

    check()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("normalize", ["codes", "allowed"])
def test_beam_search_equals_the_oracle(kernel, normalize):
    require(kernel)
    backend, _, name = kernel.partition("-")
    index, model = small_index(), FakeModel((4, 4))
    beams = hr.beam_search(
        index.to(backend),
        lambda beams: array_of(backend, model(beams)),
        batch_size=2,
        beam_width=3,
        normalize=normalize,
        temperature=0.3,
        kernel=name,  # pyright: ignore[reportArgumentType]
    )
    for request in range(2):
        assert_equals(beams, request, oracle_search(SIDS, model.logits_of(request), 2, 3, normalize, temperature=0.3))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("temperature", [1e-8, 0.25, 3.0, 1e8])
@pytest.mark.parametrize(
    "row",
    [
        [0.0, -INF, 1.0, 5.0],
        [NAN, 0.5, NAN, NAN],
        [NAN, NAN, NAN, NAN],
        [INF, 0.0, 1.0, 2.0],
        [-INF, INF, NAN, 0.0],
        [3.0e38, -3.0e38, 1.0, 0.0],
        [LEAST, LEAST, 2.0, LEAST],
        [LEAST, LEAST, LEAST, LEAST],
        [1e-40, 80.0, -80.0, 1e4],
    ],
)
def test_special_logits_equal_the_oracle(kernel, temperature, row):
    """Finite logits stay finite: a model that masks with the least float does not lose beams at a low temperature."""
    require(kernel)
    backend, _, name = kernel.partition("-")
    device_index = small_index().to(backend)
    logits = array_of(backend, np.asarray(row, np.float32).reshape(1, 1, 4))
    options: Any = {"beam_width": 5, "temperature": temperature}
    beams = stepper(backend, name)(device_index, hr.init_beams(device_index, 1), logits, **options)
    values = np.asarray(row, np.float32).tolist()
    assert_equals(beams, 0, oracle_step(SIDS, [((), 0.0)], lambda _: values, 5, temperature=temperature))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_float_types_equal_the_oracle(kernel, dtype):
    """The division is in float32 or float64: float16 would overflow at 65,504."""
    require(kernel)
    backend, _, name = kernel.partition("-")
    if (backend, dtype) == ("jax", "float64"):
        pytest.skip("JAX has float64 only if it is enabled")
    device_index = small_index().to(backend)
    row = np.asarray([60_000.0, -60_000.0, 59_968.0, 0.5], dtype)
    beams = hr.step(
        device_index,
        hr.init_beams(device_index, 1),
        array_of(backend, row.reshape(1, 1, 4)),
        beam_width=3,
        temperature=0.125,
        kernel=name,  # pyright: ignore[reportArgumentType]
    )
    assert_equals(beams, 0, oracle_step(SIDS, [((), 0.0)], lambda _: row.tolist(), 3, temperature=0.125))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("normalize", ["codes", "allowed"])
def test_ragged_sids_equal_the_oracle(kernel, normalize):
    require(kernel)
    names = Ragged([(3,), (3, 1), (3, 1, 4), (0, 2), (0, 2), (2, 0, 0), (3, 1, 4, 1)], (4, 3, 5, 2))
    index, model = hr.build_index(names.catalog), FakeModel(names.catalog.codebook_sizes)
    options: Any = {"beam_width": 5, "temperature": 2.5, "normalize": normalize}
    beams = search(index, kernel, model, batch_size=2, **options)
    for request in range(2):
        logits_of, end_logit_of = logits_and_end(model.logits_of(request))
        expected = oracle_search(names.sids, logits_of, 4, 5, normalize, end_logit_of=end_logit_of, temperature=2.5)
        assert_equals(beams, request, [(names.as_codes(sid), score) for sid, score in expected])


@pytest.mark.parametrize("backend", BACKENDS)
def test_masked_probability_divides_the_logits(backend):
    pytest.importorskip(backend)
    index = small_index()
    beams, logits = hr.init_beams(index, 1), np.asarray([[[0.5, 2.0, -1.0, 1.5]]], np.float32)
    device_index = index.to(backend)
    removed = hr.masked_probability(
        device_index, hr.init_beams(device_index, 1), array_of(backend, logits), temperature=0.5
    )
    np.testing.assert_allclose(to_numpy(removed), hr.masked_probability(index, beams, logits / 0.5), rtol=1e-5)
    assert to_numpy(removed)[0, 0] == pytest.approx(np.exp(3.0) / np.exp([1.0, 4.0, -2.0, 3.0]).sum(), rel=1e-5)


def test_one_changes_nothing():
    index, logits = small_index(), np.asarray([[[0.5, 2.0, -1.0, 1.5]]], np.float32)
    plain = hr.step(index, hr.init_beams(index, 1), logits, beam_width=3)
    for temperature in (1, 1.0, np.float64(1)):
        beams = hr.step(index, hr.init_beams(index, 1), logits, beam_width=3, temperature=temperature)
        np.testing.assert_array_equal(beams.scores, plain.scores)
    beams = hr.step(index, hr.init_beams(index, 1), logits, beam_width=3, temperature=1, normalize=None)
    assert beams.num_valid.tolist() == [3]


def test_oracle_by_hand():
    expected = oracle_step(SIDS, [((), 0.0)], lambda _: [2.0, 0.0, 4.0, 9.0], 2, "allowed", temperature=2.0)
    log_sum = np.log(np.exp(1) + 1 + np.exp(2))
    assert [prefix for prefix, _ in expected] == [(2,), (0,)]
    assert [score for _, score in expected] == pytest.approx([2 - log_sum, 1 - log_sum])


class TestRejects:
    def setup_method(self):
        self.index = small_index()
        self.beams = hr.init_beams(self.index, 1)
        self.logits = np.zeros((1, 1, 4), np.float32)

    @pytest.mark.parametrize(
        "temperature", [0, 0.0, -1.0, NAN, INF, -INF, "1", None, True, [1.0], np.asarray([1.0, 2.0]), 1e-9, 1e9]
    )
    def test_invalid_values(self, temperature):
        for call in (hr.step, hr.masked_probability):
            options: Any = {"beam_width": 2} if call is hr.step else {}
            with pytest.raises(hr.ArgumentError, match="temperature must be"):
                call(self.index, self.beams, self.logits, temperature=temperature, **options)
        with pytest.raises(hr.ArgumentError, match="temperature must be"):
            hr.beam_search(self.index, lambda _: self.logits, batch_size=1, beam_width=2, temperature=temperature)

    def test_log_probabilities(self):
        for call in (hr.step, hr.masked_probability):
            options: Any = {"beam_width": 2} if call is hr.step else {}
            with pytest.raises(hr.ArgumentError, match=r"temperature=0.5 needs normalize='codes'"):
                call(self.index, self.beams, self.logits, temperature=0.5, normalize=None, **options)

    def test_traced_values(self):
        jax = pytest.importorskip("jax")
        index = self.index.to("jax")
        with pytest.raises(hr.ArgumentError, match="temperature must be"):
            jax.jit(hr.step, static_argnames="beam_width")(
                index, hr.init_beams(index, 1), jax.numpy.zeros((1, 1, 4)), beam_width=2, temperature=0.5
            )


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torch_compile_makes_one_graph_per_temperature():
    torch = pytest.importorskip("torch")
    from torch._dynamo.testing import CompileCounterWithBackend

    torch.compiler.reset()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(hr.step, fullgraph=True, dynamic=False, backend=counter)
    index, logits = small_index().to("torch"), torch.tensor([[[0.5, 2.0, -1.0, 1.5]]])
    for temperature in (0.5, 2.0, 0.5):
        options: Any = {"beam_width": 3, "temperature": temperature}
        beams = compiled(index, hr.init_beams(index, 1), logits, **options)
        expected = hr.step(index, hr.init_beams(index, 1), logits, **options)
        np.testing.assert_allclose(to_numpy(beams.scores), to_numpy(expected.scores), rtol=1e-6)
    assert counter.frame_count == 2
    torch.compiler.reset()
