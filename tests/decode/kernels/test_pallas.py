"""The Pallas kernels: in the interpreter, which runs them without a TPU, and compiled for a TPU as far as JAX does."""

from contextlib import contextmanager

import numpy as np
import pytest
import test_contract
import test_ties
from hypothesis import given, settings
from hypothesis import strategies as st
from support import FakeModel, array_of, catalogs, dense_levels_of, stepper

import hedgerow as hr
from hedgerow.decode.ops import to_numpy

jax = pytest.importorskip("jax")

KERNEL = "jax-pallas"
INF = float("inf")


@contextmanager
def interpreter(**changes):
    """Run the kernels in the interpreter, with other block sizes and limits."""
    from hedgerow.decode.kernels import pallas

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"INTERPRET": True, **changes}.items():
            patch.setattr(pallas, name, value)
        yield


@pytest.fixture
def _interpreted():
    with interpreter():
        yield


def assert_equals_array(index, *, beam_width, normalize="codes", change=lambda logits: logits, prepared=None):
    """Assert that every step of a search with the kernels equals the array step."""
    device_index, model = index.to("jax"), FakeModel(index.codebook_sizes)
    steps = {name: stepper("jax", name) for name in ("array", "pallas")}
    beams = hr.init_beams(device_index, 2)
    limits = None if prepared is None else prepared(device_index)
    for _ in range(index.num_levels):
        logits = array_of("jax", change(model(beams)))
        options = {"beam_width": beam_width, "normalize": normalize, "constraints": limits}
        expected, found = (step(device_index, beams, logits, **options) for step in steps.values())
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6, atol=1e-6)
        for name in ("codes", "states", "parents"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        beams = expected


@pytest.mark.usefixtures("_interpreted")
class TestInterpreted:
    def test_equals_the_oracle_on_random_catalogs(self):
        # JAX compiles each shape, and the interpreter is slow to compile, so it runs on few examples.
        @settings(max_examples=4)
        @given(
            catalog=catalogs(),
            beam_width=st.sampled_from([1, 5, 17, 70]),
            normalize=st.sampled_from(["codes", "allowed", None]),
            dense=st.sampled_from(["auto", "all", "none"]),
        )
        def check(catalog, beam_width, normalize, dense):
            levels = dense_levels_of(dense, catalog.num_levels)
            test_contract.assert_equals_oracle(catalog, KERNEL, 2, beam_width, normalize=normalize, dense_levels=levels)

        check()

    @pytest.mark.parametrize("dense", ["all", "none"])
    @pytest.mark.parametrize("size", [1, 63, 129, 2049])
    def test_odd_codebooks(self, size, dense):
        catalog = hr.Catalog(np.random.default_rng(size).integers(0, size, (400, 2)), codebook_sizes=size)
        assert_equals_array(hr.build_index(catalog, dense_levels=dense_levels_of(dense, 2)), beam_width=20)

    @pytest.mark.parametrize("dense", ["all", "none"])
    def test_ties_go_by_sid(self, dense):
        catalog = hr.Catalog(np.random.default_rng(0).integers(0, 300, (900, 2)), codebook_sizes=300)
        test_ties.assert_equals_oracle(catalog, KERNEL, 40, dense=dense, highest=0)

    @pytest.mark.parametrize("normalize", ["codes", "allowed", None])
    @pytest.mark.parametrize("dense", ["all", "none"])
    def test_logits_that_are_bounded(self, normalize, dense):
        rng = np.random.default_rng(1)

        def change(logits):
            chosen = rng.choice([0, np.nan, INF, -INF, 3e38, -3e38], logits.shape, p=[0.75, *[0.05] * 5])
            return np.where(chosen == 0, logits, chosen).astype(np.float32)

        catalog = hr.Catalog(rng.integers(0, 140, (600, 2)), codebook_sizes=140)
        index = hr.build_index(catalog, dense_levels=dense_levels_of(dense, 2))
        assert_equals_array(index, beam_width=20, normalize=normalize, change=change)

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    @pytest.mark.parametrize("dense", ["all", "none"])
    def test_narrow_logits(self, dtype, dense):
        catalog = hr.Catalog(np.random.default_rng(2).integers(0, 40, (300, 2)), codebook_sizes=40)
        index = hr.build_index(catalog, dense_levels=dense_levels_of(dense, 2))
        assert_equals_array(index, beam_width=7, change=lambda logits: jax.numpy.asarray(logits, dtype))

    @pytest.mark.parametrize("dense", ["all", "none"])
    def test_sets_and_exclusions(self, dense):
        catalog = hr.Catalog(np.random.default_rng(3).integers(0, 40, (300, 3)), codebook_sizes=40)
        index = hr.build_index(catalog, dense_levels=dense_levels_of(dense, 3))
        even = index.constraint(ids=range(0, 300, 2))

        def prepared(device_index):
            return hr.prepare_constraints(device_index, 2, constraints=[even, None], exclude=[[2, 4], range(9)])

        assert_equals_array(index, beam_width=20, prepared=prepared)

    @pytest.mark.parametrize("dense", ["all", "none"])
    def test_several_blocks_of_rows(self, dense):
        """The last block has rows past the last one."""
        catalog = hr.Catalog(np.random.default_rng(4).integers(0, 300, (900, 3)), codebook_sizes=300)
        index = hr.build_index(catalog, dense_levels=dense_levels_of(dense, 3))
        with interpreter(MAX_ROWS=16):
            assert_equals_array(index, beam_width=21)


class TestWhereItRuns:
    catalog = hr.Catalog(np.random.default_rng(5).integers(0, 300, (4000, 2)), codebook_sizes=300)

    def exported(self, dense, platforms, kernel):
        """The program of a step at level 1, as text."""
        from jax import ShapeDtypeStruct as Shape

        index = hr.build_index(self.catalog, dense_levels=dense_levels_of(dense, 2)).to("jax")
        whole, real = np.int32, np.float32
        beams = hr.Beams(Shape((2, 20, 1), whole), Shape((2, 20), real), Shape((2, 20), whole), Shape((2, 20), whole))
        step = jax.jit(lambda index, beams, logits: hr.step(index, beams, logits, beam_width=20, kernel=kernel))
        return jax.export.export(step, platforms=platforms)(index, beams, Shape((2, 20, 300), real)).mlir_module()

    @pytest.mark.parametrize("dense", ["all", "none"])
    def test_a_step_for_a_tpu_has_the_kernel(self, dense):
        assert "tpu_custom_call" in self.exported(dense, ["tpu"], "pallas")
        assert "tpu_custom_call" not in self.exported(dense, ["tpu"], "array")

    def test_on_a_tpu_a_step_for_all_platforms_has_the_kernel(self, monkeypatch):
        monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
        assert "tpu_custom_call" in self.exported("none", ["cpu", "cuda", "tpu"], "auto")
        assert "tpu_custom_call" not in self.exported("none", ["cpu", "cuda"], "auto")

    def test_of_several_tpus_only_shard_map_has_the_kernel(self, monkeypatch):
        monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
        monkeypatch.setattr(jax, "device_count", lambda: 4)
        assert "tpu_custom_call" not in self.exported("none", ["tpu"], "auto")

    def test_elsewhere_it_is_refused(self):
        index = hr.build_index(self.catalog)
        for backend, reason in (("numpy", "the backend 'numpy'"), ("jax", "the arrays are on 'cpu'")):
            beams = hr.init_beams(index.to(backend), 1)
            logits = array_of(backend, np.zeros((1, 1, 300), np.float32))
            with pytest.raises(hr.BackendError, match=f"the pallas kernels cannot run: .*{reason}"):
                hr.step(index.to(backend), beams, logits, beam_width=2, kernel="pallas")

    def test_levels_that_are_too_large_are_refused(self):
        index = hr.build_index(self.catalog, dense_levels=()).to("jax")
        logits = jax.numpy.zeros((1, 1, 300))
        for changes, reason in (({"MAX_CODES": 299}, "has 300 codes"), ({"MAX_GATHERS": 2}, "300 children")):
            with interpreter(**changes), pytest.raises(hr.BackendError, match=reason):
                hr.step(index, hr.init_beams(index, 1), logits, beam_width=2, kernel="pallas")

    def test_columns_of_a_rank_are_refused(self):
        index = hr.build_index(self.catalog).to("jax")
        options = {"beam_width": 2, "kernel": "pallas", "normalize": None, "code_range": (0, 150)}
        with pytest.raises(hr.BackendError, match="the pallas kernel takes the logits of all codes"):
            hr.step(index, hr.init_beams(index, 1), jax.numpy.zeros((1, 1, 150)), **options)


def test_a_search_equals_the_oracle_at_every_beam_width():
    """More beams than candidates, and one beam."""
    catalog = hr.Catalog(np.random.default_rng(6).integers(0, 9, (20, 2)), codebook_sizes=9)
    with interpreter():
        for width in (1, 100):
            beams = test_contract.assert_equals_oracle(catalog, KERNEL, 1, width)
            assert to_numpy(beams.num_valid)[0] == min(width, len({tuple(sid) for sid in catalog.sids.tolist()}))
