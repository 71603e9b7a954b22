"""Indexes that are padded to a capacity: equal beams, and no recompilation for the next version."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import KERNELS, FakeModel, array_of, catalogs, require, stepper

import hedgerow as hr
from hedgerow.decode.ops import to_numpy

pytestmark = pytest.mark.usefixtures("layout")

SIZES = (8, 40, 300, 9, 5)
WIDTH = 20


def index_of(items, seed=0):
    rng = np.random.default_rng(seed)
    sids = np.stack([rng.integers(0, size, items) for size in SIZES], axis=1)
    return hr.build_index(hr.Catalog(sids, codebook_sizes=SIZES))


def run_search(device_index, kernel, model, levels, width=WIDTH):
    backend, _, name = kernel.partition("-")
    step = stepper(backend, name)
    beams = hr.init_beams(device_index, 2)
    for _ in range(levels):
        beams = step(device_index, beams, array_of(backend, model(beams)), beam_width=width)
    return beams


def assert_same(beams, expected):
    np.testing.assert_allclose(to_numpy(beams.scores), expected.scores, rtol=1e-5, atol=1e-5)
    assert (to_numpy(beams.codes) == expected.codes).all()
    assert (to_numpy(beams.states) == expected.states).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_gives_equal_beams_on_padded_arrays(kernel):
    require(kernel)

    @settings(max_examples=3 if kernel.startswith("jax") else 40)
    @given(catalog=catalogs(), headroom=st.sampled_from([1, 1.25, 3]))
    def holds(catalog, headroom):
        index = hr.build_index(catalog)
        capacity = hr.Capacity.of(index, headroom)
        model = FakeModel(catalog.codebook_sizes)
        expected = hr.beam_search(index, model, batch_size=2, beam_width=WIDTH)
        padded = index.to(kernel.partition("-")[0], capacity=capacity)
        assert_same(run_search(padded, kernel, model, index.num_levels), expected)

    holds()


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_index_can_have_other_representations_than_its_capacity(kernel, layout):
    """Row pointers instead of forks and the reverse, with a bitmap and without."""
    require(kernel)
    representations = set()
    capacity = hr.Capacity.of(index_of(2000), 2)
    for items in (1, 30, 300, 2000):
        index = index_of(items, seed=items)
        assert capacity.holds(index)
        representations |= {level.representation for level in index.levels}
        expected = hr.beam_search(index, FakeModel(SIZES), batch_size=2, beam_width=WIDTH)
        padded = index.to(kernel.partition("-")[0], capacity=capacity)
        assert_same(run_search(padded, kernel, FakeModel(SIZES), len(SIZES)), expected)
    if layout == "plain":
        assert representations == {"unary", "forked", "sparse", "dense"}
    else:
        assert representations >= {"dense", "elias-fano"}


def test_an_empty_index_fits_and_has_no_beams():
    empty = hr.build_index(hr.Catalog(np.zeros((0, len(SIZES)), int), codebook_sizes=SIZES))
    for capacity in (hr.Capacity.of(empty), hr.Capacity.of(index_of(300))):
        beams = hr.beam_search(empty.to("numpy", capacity=capacity), FakeModel(SIZES), batch_size=1, beam_width=3)
        assert beams.num_valid.tolist() == [0]


@pytest.fixture(scope="module")
def versions():
    """Three versions of an index, each with more items, and the capacity of the first."""
    rng = np.random.default_rng(0)
    sids = np.stack([rng.integers(0, size, 1000) for size in SIZES], axis=1)
    versions = [hr.build_index(hr.Catalog(sids[:items], codebook_sizes=SIZES)) for items in (800, 900, 1000)]
    assert len({version.nodes_per_level for version in versions}) == 3
    return versions, hr.Capacity.of(versions[0], 1.5)


def test_jax_does_not_recompile_for_the_next_version(versions):
    jax = pytest.importorskip("jax")
    traces = []

    def counted(device_index, beams, logits):
        traces.append(beams.level)
        return hr.step(device_index, beams, logits, beam_width=WIDTH)

    jitted = jax.jit(counted)
    for index in versions[0]:
        device_index, model = index.to("jax", capacity=versions[1]), FakeModel(SIZES)
        beams = hr.init_beams(device_index, 2)
        for _ in SIZES:
            beams = jitted(device_index, beams, jax.numpy.asarray(model(beams)))
        assert_same(beams, hr.beam_search(index, model, batch_size=2, beam_width=WIDTH))
    assert traces == list(range(len(SIZES)))
    assert jitted._cache_size() == len(SIZES)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("dynamic", [False, None])
def test_torch_does_not_recompile_for_the_next_version(versions, dynamic):
    torch = pytest.importorskip("torch")
    graphs = []

    def counted(graph, _):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(hr.step, fullgraph=True, dynamic=dynamic, backend=counted)
    after_first = None
    for index in versions[0]:
        device_index, model = index.to("torch", capacity=versions[1]), FakeModel(SIZES)
        beams = hr.init_beams(device_index, 2)
        for _ in SIZES:
            beams = compiled(device_index, beams, torch.from_numpy(model(beams)), beam_width=WIDTH)
        assert_same(beams, hr.beam_search(index, model, batch_size=2, beam_width=WIDTH))
        after_first = after_first or len(graphs)
    torch._dynamo.reset()
    assert after_first is not None
    assert len(graphs) == after_first <= len(SIZES)


def test_refill_writes_the_new_index_to_the_same_memory(versions):
    pytest.importorskip("torch")
    indexes, capacity = versions
    device_index = indexes[2].to("torch", capacity=capacity)
    address = [level.codes.data_ptr() for level in device_index.levels]
    for index in indexes:
        device_index.refill(index)
        expected = hr.beam_search(index, FakeModel(SIZES), batch_size=2, beam_width=WIDTH)
        assert_same(run_search(device_index, "torch-array", FakeModel(SIZES), len(SIZES)), expected)
    assert [level.codes.data_ptr() for level in device_index.levels] == address


def test_a_captured_graph_searches_the_next_version(versions):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    indexes, capacity = versions
    device_index = indexes[0].to("torch", "cuda", capacity=capacity)
    tables = [torch.randn(2, 1 if not level else WIDTH, size, device="cuda") for level, size in enumerate(SIZES)]

    def search():
        return hr.beam_search(device_index, lambda beams: tables[beams.level], batch_size=2, beam_width=WIDTH)

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        search()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        beams = search()
    for index in indexes:
        device_index.refill(index)
        graph.replay()
        expected = hr.beam_search(
            index, lambda beams: tables[beams.level].cpu().numpy(), batch_size=2, beam_width=WIDTH
        )
        np.testing.assert_allclose(to_numpy(beams.scores), expected.scores, rtol=1e-4, atol=1e-4)


def test_rejects_indexes_that_do_not_fit_and_invalid_arguments(versions):
    pytest.importorskip("torch")
    indexes, capacity = versions
    with pytest.raises(hr.ArgumentError, match="does not fit into this capacity"):
        index_of(3000).to("numpy", capacity=capacity)
    with pytest.raises(hr.ArgumentError, match="does not fit"):
        hr.build_index(hr.Catalog([[0, 1]])).to("numpy", capacity=capacity)
    for headroom in (0.5, float("nan"), float("inf"), "2", None):
        with pytest.raises(hr.ArgumentError, match="headroom must be"):
            hr.Capacity.of(indexes[0], headroom)  # pyright: ignore[reportArgumentType]
    with pytest.raises(hr.ArgumentError, match="refill needs an index with a capacity"):
        indexes[0].to("torch").refill(indexes[1])
    with pytest.raises(hr.BackendError, match="refill writes to PyTorch tensors"):
        indexes[0].to("numpy", capacity=capacity).refill(indexes[1])


def test_refill_rejects_other_indexes():
    pytest.importorskip("torch")
    index = hr.build_index(hr.Catalog([[0, 1], [2, 0]]))
    device_index = index.to("torch", capacity=hr.Capacity.of(index))
    with pytest.raises(hr.ArgumentError, match="refill takes a TrieIndex or a DeviceIndex; got NoneType"):
        device_index.refill(None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(hr.ArgumentError, match="a device index of the same backend and capacity"):
        device_index.refill(index.to("torch"))


def flat(beams):
    import torch

    return torch.zeros((*beams.states.shape, 3))


def test_refill_with_the_arrays_of_another_device_index():
    pytest.importorskip("torch")
    first = hr.build_index(hr.Catalog([[0, 1], [2, 0]], codebook_sizes=3))
    second = hr.build_index(hr.Catalog([[0, 1], [1, 1], [2, 0]], codebook_sizes=3))
    capacity = hr.Capacity.of(first, headroom=2.0)
    device_index = first.to("torch", capacity=capacity)
    device_index.refill(second.to("torch", capacity=capacity))
    beams = hr.beam_search(device_index, flat, batch_size=1, beam_width=4)
    assert second.results(beams)[0].sids.tolist() == second.sids().tolist()
