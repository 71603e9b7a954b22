"""Constraints on indexes that are padded to a capacity: equal beams, and no recompilation for the next version."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shown import random_requests, rules_of
from support import KERNELS, FakeModel, array_of, catalogs, dense_levels_of, require, stepper

import hedgerow as hr
from hedgerow.decode.alive import alive_on_device
from hedgerow.decode.capacity import padded_alive, padded_leaves
from hedgerow.decode.ops import to_numpy

pytestmark = pytest.mark.usefixtures("layout")

SIZES, WIDTH, BATCH = (8, 40, 300, 9, 5), 12, 3
ITEMS = (800, 900, 1000)


@pytest.fixture(scope="module")
def versions():
    """Three versions of an index, each with more items, and the capacity of the first."""
    rng = np.random.default_rng(0)
    sids = np.stack([rng.integers(0, size, ITEMS[-1]) for size in SIZES], axis=1)
    indexes = [hr.build_index(hr.Catalog(sids[:items], codebook_sizes=SIZES)) for items in ITEMS]
    return indexes, hr.Capacity.of(indexes[0], 1.5)


def rules(index, seed):
    """Different sets and exclusions of equal sizes: two sets per batch, and up to 16 excluded items per request."""
    rng = np.random.default_rng(seed)
    a, b, c = (index.constraint(rng.random(index.num_items) < share, order="index") for share in (0.5, 0.05, 0.9))
    few = [rng.permutation(index.num_items)[:count].tolist() for count in (1, 9, 16)]
    return [
        {"constraints": [a, None, b], "exclude": [few[0], None, None]},
        {"constraints": [c, a & b, None], "exclude": [None, few[1], few[2]]},
        {"constraints": [b, c, c], "exclude": [few[2], few[2], few[0]]},
    ]


def searches(versions):
    """Every rule of every version: the index, the rule, and the beams of the unpadded search."""
    for seed, index in enumerate(versions[0]):
        for rule in rules(index, seed):
            yield index, rule, hr.beam_search(index, FakeModel(SIZES), batch_size=BATCH, beam_width=WIDTH, **rule)


def assert_same(beams, expected):
    np.testing.assert_allclose(to_numpy(beams.scores), expected.scores, rtol=1e-5, atol=1e-5)
    assert (to_numpy(beams.codes) == expected.codes).all()
    assert (to_numpy(beams.states) == expected.states).all()


def run_search(step, device_index, backend, model, prepared, width, batch=BATCH):
    beams = hr.init_beams(device_index, batch)
    for _ in range(device_index.num_levels):
        beams = step(device_index, beams, array_of(backend, model(beams)), beam_width=width, constraints=prepared)
    return beams


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_gives_equal_beams_on_padded_arrays(kernel):
    require(kernel)
    backend, _, name = kernel.partition("-")

    @settings(max_examples=2 if backend == "jax" else 40)
    @given(
        catalog=catalogs(),
        dense=st.sampled_from(["auto", "all", "none"]),
        capacity_dense=st.sampled_from(["auto", "all", "none"]),
        seed=st.integers(0, 2**32),
    )
    def holds(catalog, dense, capacity_dense, seed):
        """A level can have a bitmap in the index and not in the capacity, and the reverse."""
        index, other = (
            hr.build_index(catalog, dense_levels=dense_levels_of(choice, catalog.num_levels))
            for choice in (dense, capacity_dense)
        )
        capacity = hr.Capacity.of(other, 1.25)
        rule = rules_of(index, random_requests(np.random.default_rng(seed), catalog.num_items, BATCH))
        model = FakeModel(catalog.codebook_sizes)
        expected = hr.beam_search(index, model, batch_size=BATCH, beam_width=WIDTH, **rule)
        device_index = index.to(backend, capacity=capacity)
        prepared = hr.prepare_constraints(device_index, BATCH, **rule)
        assert_same(run_search(stepper(backend, name), device_index, backend, model, prepared, WIDTH), expected)

    holds()


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_alive_nodes_on_a_device_equal_those_on_the_host(backend, versions):
    pytest.importorskip(backend)
    for index in versions[0]:
        alive = index.constraint(np.random.default_rng(2).random(index.num_items) < 0.3, order="index")._alive
        leaves = array_of(backend, padded_leaves(versions[1], alive.leaves).view(np.int32))
        levels = alive_on_device(index.to(backend, capacity=versions[1]), leaves)
        for words, expected in zip(levels, padded_alive(versions[1], index, alive.levels), strict=True):
            assert (to_numpy(words).view(np.uint32) == expected).all()


def test_jax_traces_each_level_once(versions):
    jax = pytest.importorskip("jax")
    traces, model = [], FakeModel(SIZES)

    @jax.jit
    def step(device_index, beams, logits, constraints):
        traces.append(beams.level)
        return hr.step(device_index, beams, logits, beam_width=WIDTH, constraints=constraints)

    for index, rule, expected in searches(versions):
        device_index, beams = index.to("jax", capacity=versions[1]), hr.init_beams(index.to("jax"), BATCH)
        prepared = hr.prepare_constraints(device_index, BATCH, **rule)
        for _ in SIZES:
            beams = step(device_index, beams, jax.numpy.asarray(model(beams)), prepared)
        assert_same(beams, expected)
    assert traces == list(range(len(SIZES)))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torch_compiles_each_level_once(versions):
    torch = pytest.importorskip("torch")
    graphs = []

    def counted(graph, _):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(hr.step, fullgraph=True, dynamic=False, backend=counted)
    for index, rule, expected in searches(versions):
        device_index = index.to("torch", capacity=versions[1])
        prepared = hr.prepare_constraints(device_index, BATCH, **rule)
        assert_same(run_search(compiled, device_index, "torch", FakeModel(SIZES), prepared, WIDTH), expected)
        assert len(graphs) == len(SIZES)
    torch.compiler.reset()


class TestRefill:
    """The tensors that a captured graph reads, filled with the index and the rules of another version."""

    def test_the_same_memory_gives_the_beams_of_each_version(self, versions):
        pytest.importorskip("torch")
        device_index = versions[0][0].to("torch", capacity=versions[1])
        static, addresses = None, []
        for index, rule, expected in searches(versions):
            device_index.refill(index)
            prepared = hr.prepare_constraints(device_index, BATCH, **rule)
            assert prepared is not None
            if static is None:
                static = prepared.copy()
            else:
                static.refill(prepared)
            beams = run_search(stepper("torch"), device_index, "torch", FakeModel(SIZES), static, WIDTH)
            assert_same(beams, expected)
            addresses.append(
                [array.data_ptr() for level in static.levels for array in level.arrays if array is not None]
            )
        assert all(address == addresses[0] for address in addresses)
        # The cache of the sets was not written to.
        for index, rule, expected in searches(versions):
            fresh = hr.prepare_constraints(index.to("torch", capacity=versions[1]), BATCH, **rule)
            padded = index.to("torch", capacity=versions[1])
            assert_same(run_search(stepper("torch"), padded, "torch", FakeModel(SIZES), fresh, WIDTH), expected)

    def test_a_captured_graph_searches_the_next_version(self, versions):
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")
        device_index = versions[0][0].to("torch", "cuda", capacity=versions[1])
        static = hr.prepare_constraints(device_index, BATCH, **rules(versions[0][0], 0)[0])
        assert static is not None
        static = static.copy()
        tables = [torch.randn(BATCH, WIDTH if level else 1, size) for level, size in enumerate(SIZES)]
        placed = [table.cuda() for table in tables]

        def search():
            return hr.beam_search(
                device_index, lambda beams: placed[beams.level], batch_size=BATCH, beam_width=WIDTH, constraints=static
            )

        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            search()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            beams = search()
        for index, rule, _ in searches(versions):
            device_index.refill(index)
            static.refill(hr.prepare_constraints(device_index, BATCH, **rule))
            graph.replay()
            expected = hr.beam_search(
                index, lambda beams: tables[beams.level].numpy(), batch_size=BATCH, beam_width=WIDTH, **rule
            )
            np.testing.assert_allclose(to_numpy(beams.scores), expected.scores, rtol=1e-4, atol=1e-4)

    def test_rejects_constraints_that_do_not_fit(self, versions):
        pytest.importorskip("torch")
        index = versions[0][0]
        device_index = index.to("torch", capacity=versions[1])
        first, second, _ = (hr.prepare_constraints(device_index, BATCH, **rule) for rule in rules(index, 0))
        assert first is not None
        with pytest.raises(hr.BackendError, match="only a copy can be refilled"):
            first.refill(second)
        static = first.copy()
        with pytest.raises(
            hr.ConstraintError, match=r"3 requests, 2 sets of .* 16 excluded.* the others have no constraints"
        ):
            static.refill(None)
        with pytest.raises(hr.ConstraintError, match=r"1 sets of .* and no exclusion"):
            static.refill(hr.prepare_constraints(device_index, BATCH, constraints=index.constraint(ids=[1])))
        on_host = hr.prepare_constraints(index, BATCH, **rules(index, 0)[0])
        assert on_host is not None
        with pytest.raises(hr.BackendError, match="need PyTorch tensors"):
            static.refill(on_host)
        with pytest.raises(hr.BackendError, match="need PyTorch tensors"):
            on_host.copy()
