"""The step in compilers: one graph, no synchronization with the host, equal results."""

import shutil
import warnings

import numpy as np
import pytest
from support import FakeModel

import hedgerow as hr
from hedgerow.decode.ops import to_numpy

pytestmark = pytest.mark.usefixtures("layout")

SIZES = (8, 40, 300, 9)
WIDTH = 20


@pytest.fixture(scope="module")
def index():
    rng = np.random.default_rng(0)
    index = hr.build_index(
        hr.Catalog(np.stack([rng.integers(0, size, 500) for size in SIZES], axis=1), codebook_sizes=SIZES)
    )
    assert {level.representation for level in index.levels} == {"dense", "sparse", "unary"}
    return index


@pytest.fixture(scope="module")
def expected(index):
    return hr.beam_search(index, FakeModel(SIZES), batch_size=2, beam_width=WIDTH)


def assert_same(beams, expected):
    np.testing.assert_allclose(to_numpy(beams.scores), expected.scores, rtol=1e-5, atol=1e-5)
    assert (to_numpy(beams.codes) == expected.codes).all()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torch_compile_makes_one_graph(index, expected):
    torch = pytest.importorskip("torch")
    device_index, model = index.to("torch"), FakeModel(SIZES)
    # Without a C++ compiler the graph is captured, but not compiled.
    backend = "inductor" if shutil.which("g++") else "aot_eager"
    compiled = torch.compile(hr.step, fullgraph=True, dynamic=False, backend=backend)
    beams = hr.init_beams(device_index, 2)
    for _ in SIZES:
        beams = compiled(device_index, beams, torch.from_numpy(model(beams)), beam_width=WIDTH)
    assert_same(beams, expected)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torch_compile_of_batches_of_any_size(index):
    torch = pytest.importorskip("torch")
    device_index, graphs = index.to("torch"), []

    def search(logits):
        beams = hr.init_beams(device_index, logits[0].shape[0])
        for level_logits in logits:
            beams = hr.step(device_index, beams, level_logits, beam_width=WIDTH)
        return beams

    def backend(module, _):
        graphs.append(module)
        return module.forward

    compiled = torch.compile(search, backend=backend, dynamic=True, fullgraph=True)
    generator = torch.Generator().manual_seed(0)
    # PyTorch ties sizes that are equal in the first call, so the first batch size is no size of the index.
    for batch_size in (7, 3, 5, 11):
        logits = [
            torch.randn(batch_size, WIDTH if level else 1, size, generator=generator)
            for level, size in enumerate(SIZES)
        ]
        assert torch.equal(compiled(logits).codes, search(logits).codes)
    assert len(graphs) == 1


def test_torch_export(index, expected):
    torch = pytest.importorskip("torch")
    device_index, model = index.to("torch"), FakeModel(SIZES)

    class Step(torch.nn.Module):
        def forward(self, beams, logits):
            return hr.step(device_index, beams, logits, beam_width=WIDTH)

    beams = hr.init_beams(device_index, 2)
    for _ in SIZES:
        logits = torch.from_numpy(model(beams))
        beams = torch.export.export(Step(), (beams, logits), strict=True).module()(beams, logits)
    assert_same(beams, expected)


def test_jax_jit_compiles_each_level_once(index, expected):
    jax = pytest.importorskip("jax")
    device_index, model = index.to("jax"), FakeModel(SIZES)
    traces = []

    def counted(device_index, beams, logits):
        traces.append(beams.level)
        return hr.step(device_index, beams, logits, beam_width=WIDTH)

    jitted = jax.jit(counted)
    for _ in range(2):
        beams = hr.init_beams(device_index, 2)
        for _ in SIZES:
            beams = jitted(device_index, beams, jax.numpy.asarray(model(beams)))
        assert_same(beams, expected)
    assert traces == list(range(len(SIZES)))


def test_jax_jit_compiles_a_whole_search(index):
    jax = pytest.importorskip("jax")
    device_index = index.to("jax")
    tables = [np.random.default_rng(size).normal(size=size).astype(np.float32) for size in SIZES]

    def logits_fn(beams):
        return jax.numpy.broadcast_to(tables[beams.level], (*beams.states.shape, SIZES[beams.level]))

    def search(device_index):
        return hr.beam_search(device_index, logits_fn, batch_size=2, beam_width=WIDTH)

    expected = hr.beam_search(index, lambda beams: np.asarray(logits_fn(beams)), batch_size=2, beam_width=WIDTH)
    np.testing.assert_allclose(to_numpy(jax.jit(search)(device_index).scores), expected.scores, rtol=1e-5)


@pytest.mark.parametrize("dense_levels", [(), range(len(SIZES))])
def test_jax_without_rank_promotion(dense_levels):
    jax = pytest.importorskip("jax")
    rng = np.random.default_rng(0)
    catalog = hr.Catalog(np.stack([rng.integers(0, size, 300) for size in SIZES], axis=1), codebook_sizes=SIZES)
    index, model = hr.build_index(catalog, dense_levels=dense_levels), FakeModel(SIZES)
    constraint = index.constraint(rng.random(300) < 0.5, order="index")
    options = {"batch_size": 2, "beam_width": WIDTH, "constraints": [constraint, None], "exclude": [[1, 2], None]}
    expected = hr.beam_search(index, model, **options)
    device_index = index.to("jax")
    with jax.numpy_rank_promotion("raise"):
        beams = hr.beam_search(device_index, lambda beams: jax.numpy.asarray(model(beams)), **options)
        logits = jax.numpy.zeros((2, 1, SIZES[0]))
        hr.masked_probability(device_index, hr.init_beams(device_index, 2), logits, constraints=[constraint, None])
    assert_same(beams, expected)


def test_jax_export_for_cpu_cuda_and_tpu(index, expected):
    jax = pytest.importorskip("jax")
    device_index, model = index.to("jax"), FakeModel(SIZES)
    step = jax.jit(lambda beams, logits: hr.step(device_index, beams, logits, beam_width=WIDTH))
    beams = hr.init_beams(device_index, 2)
    for _ in SIZES:
        logits = jax.numpy.asarray(model(beams))
        exported = jax.export.export(step, platforms=["cpu", "cuda", "tpu"])(beams, logits)
        assert exported.platforms == ("cpu", "cuda", "tpu")
        beams = jax.export.deserialize(exported.serialize()).call(beams, logits)
    assert_same(beams, expected)


def test_torch_step_gives_no_warning(index):
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        device_index = index.to("torch")
        hr.step(device_index, hr.init_beams(device_index, 1), torch.zeros(1, 1, SIZES[0]), beam_width=2)
