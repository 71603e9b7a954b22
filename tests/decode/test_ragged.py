"""Ragged SIDs in the step: every kernel against the oracle, which has no end codes."""

import shutil
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ragged import Ragged, logits_and_end, padded, ragged
from support import BACKENDS, KERNELS, FakeModel, array_of, dense_levels_of, require, search, stepper

import hedgerow as hr
from hedgerow.decode.ops import to_numpy
from hedgerow.decode.oracle import oracle_search, oracle_step

pytestmark = pytest.mark.usefixtures("layout")

NAMES = Ragged([(3,), (3, 1), (3, 1, 4), (0, 2), (0, 2), (2, 0, 0), (3, 1, 4, 1)], (4, 3, 5, 2))
WIDTHS = NAMES.catalog.codebook_sizes


def assert_equals_oracle(items: Ragged, kernel: str, batch_size: int, beam_width: int, normalize, dense_levels):
    catalog = items.catalog
    index, model = hr.build_index(catalog, dense_levels=dense_levels), FakeModel(catalog.codebook_sizes)
    beams = search(index, kernel, model, batch_size=batch_size, beam_width=beam_width, normalize=normalize)
    codes, scores, states = (to_numpy(x) for x in (beams.codes, beams.scores, beams.states))
    for request, results in enumerate(index.results(beams)):
        logits_of, end_logit_of = logits_and_end(model.logits_of(request))
        expected = oracle_search(
            items.sids, logits_of, catalog.num_levels, beam_width, normalize, end_logit_of=end_logit_of
        )
        live = len(expected)
        np.testing.assert_allclose(scores[request, :live], [score for _, score in expected], rtol=1e-5, atol=1e-5)
        found = [tuple(sid) for sid in codes[request, :live].tolist()]
        assert sorted(found) == sorted(items.as_codes(sid) for sid, _ in expected)
        assert (index.find(codes[request, :live]) == states[request, :live]).all()
        assert (codes[request, live:] == -1).all()
        assert (scores[request, live:] == -np.inf).all()
        named = {tuple(row["sid"]) for row in results.to_pylist()}
        assert named == {sid for sid, _ in expected}
        assert len(results) == sum(items.sids.count(sid) for sid in named)
        assert results.sids.dtype == np.int32
        assert {tuple(sid) for sid in results.sids.tolist()} == {tuple(padded(sid, len(items.sizes))) for sid in named}


@pytest.mark.parametrize("kernel", KERNELS)
def test_equals_the_oracle(kernel):
    require(kernel)

    # JAX compiles each shape, so it runs on fewer examples.
    @settings(max_examples=5 if kernel.startswith("jax") else 60)
    @given(
        items=ragged(),
        batch_size=st.integers(1, 3),
        beam_width=st.sampled_from([1, 2, 5, 70]),
        normalize=st.sampled_from(["codes", "allowed", None]),
        dense=st.sampled_from(["auto", "all", "none"]),
    )
    def check(items, batch_size, beam_width, normalize, dense):
        levels = dense_levels_of(dense, len(items.sizes))
        assert_equals_oracle(items, kernel, batch_size, beam_width, normalize, levels)

    check()


@pytest.mark.parametrize("kernel", ["numpy-array", "numpy-native"])
def test_constraint_sets_and_exclusions_apply_to_ends(kernel):
    require(kernel)
    backend, _, name = kernel.partition("-")

    @settings(max_examples=25)
    @given(
        items=ragged(),
        seed=st.integers(0, 2**32),
        beam_width=st.sampled_from([1, 3, 70]),
        normalize=st.sampled_from(["codes", "allowed", None]),
        dense=st.booleans(),
    )
    def check(items, seed, beam_width, normalize, dense):
        rng = np.random.default_rng(seed)
        catalog = items.catalog
        index = hr.build_index(catalog, dense_levels=range(len(items.sizes)) if dense else ())
        rows = index.item_ids.to_pylist()
        allowed, excluded = rng.random(len(rows)) < 0.6, rng.random(len(rows)) < 0.2
        rules = {
            "constraints": index.constraint(allowed, order="index"),
            "exclude": [[rows[row] for row in np.flatnonzero(excluded)]],
        }
        model, device_index = FakeModel(catalog.codebook_sizes), index.to(backend)
        beams = hr.init_beams(device_index, 1)
        for _ in items.sizes:
            logits = array_of(backend, model(beams))
            options = {"beam_width": beam_width, "normalize": normalize, "kernel": name}
            beams = hr.step(device_index, beams, logits, **options, **rules)
        logits_of, end_logit_of = logits_and_end(model.logits_of(0))
        sids = [items.sids[row] for row in rows]
        expected = oracle_search(
            sids, logits_of, len(items.sizes), beam_width, normalize, allowed & ~excluded, end_logit_of=end_logit_of
        )
        scores = to_numpy(beams.scores)[0, : len(expected)]
        np.testing.assert_allclose(scores, [score for _, score in expected], rtol=1e-5, atol=1e-5)
        found = {tuple(row["sid"]) for row in index.results(beams, **rules)[0].to_pylist()}
        assert found == {sid for sid, _ in expected}

    check()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("normalize", ["codes", "allowed", None])
def test_a_beam_that_has_ended_keeps_its_exact_score(kernel, normalize):
    require(kernel)
    backend, _, name = kernel.partition("-")
    items = Ragged([(1,), tuple([0] * 8)], (2,) * 8)
    index, model, step = hr.build_index(items.catalog).to(backend), FakeModel((2, *[3] * 7)), stepper(backend, name)
    beams, scores = hr.init_beams(index, 1), []
    for _ in items.sizes:
        beams = step(index, beams, array_of(backend, model(beams)), beam_width=2, normalize=normalize)
        ended = to_numpy(beams.codes)[0, :, 0] == 1
        scores.append(to_numpy(beams.scores)[0, ended].item())
    assert len(set(scores[1:])) == 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("normalize", ["codes", "allowed", None])
def test_the_logits_of_a_beam_that_has_ended_are_ignored(backend, normalize):
    pytest.importorskip(backend)
    index = hr.build_index(NAMES.catalog)
    device_index, step = index.to(backend), stepper(backend)
    model, scores = FakeModel(WIDTHS), []
    for filling in (np.nan, np.inf, -np.inf, 7.0):
        beams = hr.init_beams(device_index, 1)
        for level in range(4):
            logits = model(beams)
            if level > 1:
                logits[to_numpy(beams.codes)[..., -1] == NAMES.ends()[level - 1]] = filling
            beams = step(device_index, beams, array_of(backend, logits), beam_width=9, normalize=normalize)
        scores.append(to_numpy(beams.scores).tolist())
    assert scores[0] == scores[1] == scores[2] == scores[3]
    assert np.isfinite(scores[0]).sum() == 6


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_logits_of_every_dtype(dtype):
    torch = pytest.importorskip("torch")
    index = hr.build_index(NAMES.catalog).to("torch")
    beams = hr.init_beams(index, 2)
    for size in WIDTHS:
        logits = torch.zeros((*beams.states.shape, size), dtype=getattr(torch, dtype))
        beams = hr.step(index, beams, logits, beam_width=9)
    ends = -np.log(4) - np.log(4)
    assert to_numpy(beams.scores)[0, 0] == pytest.approx(ends, abs=1e-5)
    assert to_numpy(beams.num_valid).tolist() == [6, 6]


def test_banned_ends_and_a_model_that_only_ends():
    index = hr.build_index(NAMES.catalog)

    def ends_at(logit: float):
        def logits_fn(beams):
            logits = np.zeros((*beams.states.shape, WIDTHS[beams.level]), np.float32)
            if beams.level:
                logits[..., -1] = logit
            return logits

        found = index.results(hr.beam_search(index, logits_fn, batch_size=1, beam_width=9))[0]
        return [tuple(row["sid"]) for row in found.to_pylist()]

    assert set(ends_at(-np.inf)) == {(3, 1, 4, 1)}
    assert ends_at(50.0)[0] == (3,)
    assert set(ends_at(50.0)) == set(NAMES.sids)


def test_an_index_of_fixed_length_has_no_additional_operations():
    jax = pytest.importorskip("jax")
    sids = np.random.default_rng(0).integers(0, 9, (50, 3))
    fixed = hr.build_index(hr.Catalog(sids, codebook_sizes=9)).to("jax")
    beams = hr.step(fixed, hr.init_beams(fixed, 2), jax.numpy.zeros((2, 1, 9)), beam_width=4)
    beams = hr.step(fixed, beams, jax.numpy.zeros((2, 4, 9)), beam_width=4)

    def program(step):
        return str(jax.make_jaxpr(step)(beams, jax.numpy.zeros((2, 4, 9))))

    from hedgerow.decode.kernels.array import StepInput, array_step

    whole = program(lambda beams, logits: hr.step(fixed, beams, logits, beam_width=4))
    assert whole == program(
        lambda beams, logits: array_step(StepInput(fixed._ops, fixed.levels[2], beams, logits, 4, "codes", None))
    )


# Compilers


@pytest.fixture(scope="module")
def expected():
    return hr.beam_search(hr.build_index(NAMES.catalog), FakeModel(WIDTHS), batch_size=2, beam_width=5)


def assert_same(beams, expected):
    np.testing.assert_allclose(to_numpy(beams.scores), expected.scores, rtol=1e-5, atol=1e-5)
    assert (to_numpy(beams.codes) == expected.codes).all()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torch_compile_makes_one_graph(expected):
    torch = pytest.importorskip("torch")
    index, model = hr.build_index(NAMES.catalog).to("torch"), FakeModel(WIDTHS)
    backend = "inductor" if shutil.which("g++") else "aot_eager"
    compiled = torch.compile(hr.step, fullgraph=True, dynamic=False, backend=backend)
    beams = hr.init_beams(index, 2)
    for _ in WIDTHS:
        beams = compiled(index, beams, torch.from_numpy(model(beams)), beam_width=5)
    assert_same(beams, expected)


def test_torch_export(expected):
    torch = pytest.importorskip("torch")
    index, model = hr.build_index(NAMES.catalog).to("torch"), FakeModel(WIDTHS)

    class Step(torch.nn.Module):
        def forward(self, beams, logits):
            return hr.step(index, beams, logits, beam_width=5)

    beams = hr.init_beams(index, 2)
    for _ in WIDTHS:
        logits = torch.from_numpy(model(beams))
        beams = torch.export.export(Step(), (beams, logits), strict=True).module()(beams, logits)
    assert_same(beams, expected)


def test_jax_jit_and_export(expected):
    jax = pytest.importorskip("jax")
    index, model = hr.build_index(NAMES.catalog).to("jax"), FakeModel(WIDTHS)
    jitted = jax.jit(lambda index, beams, logits: hr.step(index, beams, logits, beam_width=5))
    exportable = jax.jit(lambda beams, logits: hr.step(index, beams, logits, beam_width=5))
    beams = hr.init_beams(index, 2)
    for _ in WIDTHS:
        logits = jax.numpy.asarray(model(beams))
        exported = jax.export.export(exportable, platforms=["cpu", "cuda", "tpu"])(beams, logits)
        same = jax.export.deserialize(exported.serialize()).call(beams, logits)
        beams = jitted(index, beams, logits)
        assert_same(same, beams)
    assert_same(beams, expected)


def test_the_oracle_by_hand():
    """(0,) can end at 2.0 or continue. After its end it competes with longer SIDs, at the same score."""
    sids = [(0,), (0, 1), (0, 1, 0), (1, 0)]
    logits = {(): [1.0, 0.0], (0,): [9.0, 5.0], (1,): [4.0, 0.0], (0, 1): [1.0, 0.0], (1, 0): [0.0, 0.0]}
    ends = {(0,): 2.0, (1,): 3.0, (0, 1): 0.5, (1, 0): 0.0}
    found = oracle_search(sids, logits.__getitem__, 3, 3, None, end_logit_of=ends.__getitem__)
    assert found == [((0, 1, 0), 7.0), ((0, 1), 6.5), ((1, 0), 4.0)]
    assert oracle_search(sids, logits.__getitem__, 3, 4, None, end_logit_of=ends.__getitem__)[3] == ((0,), 3.0)
    step = partial(
        oracle_step, sids, logits_of=logits.__getitem__, beam_width=9, level=1, end_logit_of=ends.__getitem__
    )
    assert [round(score, 3) for _, score in step([((0,), 0.0)], normalize="allowed")] == [-0.049, -3.049]
    over_codes = step([((1,), 0.0)], normalize="codes")
    assert over_codes[0][1] == pytest.approx(-np.log(1 + np.exp(-4.0) + np.exp(-1.0)))
