"""The Triton kernels: in Triton's interpreter, which runs them without a GPU, and errors where they cannot run.

An environment variable enables the interpreter before Triton is imported, so its tests run in their own process.
"""

import os
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import test_candidates
import test_contract
import test_ragged
import test_step
import test_temperature
import test_ties
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import INTERPRETED, assert_passes_interpreted
from support import FakeModel, catalogs, dense_levels_of

import hedgerow as hr
from hedgerow.decode.kernels import dispatch
from hedgerow.decode.ops import to_numpy

KERNEL = "torch-triton"
SLOW = pytest.mark.skipif("HEDGEROW_TEST_TRITON" not in os.environ, reason="make test-triton runs these tests: minutes")
INF = float("inf")
SIZES = (8, 40, 300, 9)
# Small enough that every loop of every kernel runs more than once, and every step makes a shortlist.
SMALL = {
    "FEW": 0,
    "PEAKS": 64,
    "BLOCK": 32,
    "SIEVED_CHILDREN": 64,
    "ROW_BLOCK": 64,
    "PIVOTS": 4,
    "TILE": 64,
    "PROGRAMS": 6,
    "WIDTH_BLOCK": 4,
}
FORMS = {
    "as shipped": {},
    "sieved": {"FEW": 0},
    "sieved, small": SMALL,
    "listed, small": {**SMALL, "FEW": 10**6, "TILE": 512},
}

pytestmark = pytest.mark.skipif(
    not (find_spec("torch") and find_spec("triton")), reason="PyTorch or Triton is not installed"
)


@contextmanager
def numbers(**changes):
    """Run the kernels with other block sizes and limits."""
    from hedgerow.decode.kernels import triton

    original = {name: getattr(triton, name) for name in changes}
    try:
        for name, value in changes.items():
            setattr(triton, name, value)
        triton.plan_step.cache_clear()
        yield
    finally:
        for name, value in original.items():
            setattr(triton, name, value)
        triton.plan_step.cache_clear()


def assert_equals_array(index, *, batch_size, beam_width, normalize="codes", change=lambda logits: logits):
    """Assert that every step of a search equals the array kernel."""
    import torch

    device_index, model = index.to("torch"), FakeModel(index.codebook_sizes)
    beams = hr.init_beams(device_index, batch_size)
    for _ in range(index.num_levels):
        logits = change(torch.from_numpy(model(beams)))
        options = {"beam_width": beam_width, "normalize": normalize}
        expected = hr.step(device_index, beams, logits, kernel="array", **options)
        beams = hr.step(device_index, beams, logits, kernel="triton", **options)
        np.testing.assert_allclose(to_numpy(beams.scores), to_numpy(expected.scores), rtol=1e-5, atol=1e-5)
        for name in ("codes", "states", "parents"):
            assert (getattr(beams, name) == getattr(expected, name)).all(), name
    return beams


def mixed_index():
    """Levels of every representation; level 2 has a node with many children."""
    rng = np.random.default_rng(0)
    sids = np.stack([rng.integers(0, size, 700) for size in SIZES], axis=1)
    sids[:150, :2] = sids[0, :2]
    index = hr.build_index(hr.Catalog(sids, codebook_sizes=SIZES))
    if index.layout == "plain":
        assert [level.representation for level in index.levels] == ["dense", "dense", "sparse", "forked"]
    return index


class TestSelection:
    def index(self):
        return hr.build_index(hr.Catalog([[0, 1], [1, 0]]))

    def step(self, framework, **options):
        index = self.index().to(framework)
        logits = index._ops.xp.zeros((1, 1, 2), dtype=index._ops.xp.float32)
        return hr.step(index, hr.init_beams(index, 1), logits, beam_width=1, **options)

    @pytest.mark.parametrize("backend", ["numpy", "jax"])
    def test_needs_tensors_of_torch(self, backend):
        pytest.importorskip(backend)
        with pytest.raises(hr.BackendError, match=f"'{backend}'.*PyTorch tensors"):
            self.step(backend, kernel="triton")

    def test_error_on_a_cpu(self, monkeypatch):
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        with pytest.raises(hr.BackendError, match="the index is on cpu"):
            self.step("torch", kernel="triton")

    def test_error_without_triton(self, monkeypatch):
        monkeypatch.setattr(dispatch, "HAS_TRITON", False)
        with pytest.raises(hr.BackendError, match=r"pip install 'hedgerow\[triton\]'"):
            self.step("torch", kernel="triton")

    def test_auto_does_not_choose_it_on_a_cpu(self):
        assert self.step("torch").num_valid.tolist() == [1]

    def test_import_and_steps_of_numpy_do_not_load_triton(self):
        code = """
import sys, numpy as np, hedgerow as hr
index = hr.build_index(hr.Catalog([[0, 1], [1, 0]]))
hr.step(index, hr.init_beams(index, 1), np.zeros((1, 1, 2)), beam_width=1)
print("triton" in sys.modules, "torch" in sys.modules)
"""
        finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert finished.stdout.split() == ["False", "False"]


@SLOW
@pytest.mark.skipif(INTERPRETED, reason="this is the process of the interpreter")
def test_in_the_interpreter():
    assert_passes_interpreted(f"{__file__}::TestInterpreted")


@SLOW
@pytest.mark.skipif(INTERPRETED, reason="the script starts its own interpreter")
class TestGpuScript:
    SCRIPT = Path(__file__).parents[3] / "benchmarks" / "gpu.sh"

    def run(self, *options, **environment):
        variables = {**os.environ, "PYTHON": sys.executable, **environment}
        return subprocess.run([self.SCRIPT, *options], env=variables, capture_output=True, text=True)

    def test_dry_run(self, tmp_path):
        finished = self.run("--dry-run", "--out", str(tmp_path))
        assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-2000:]
        assert {path.name for path in tmp_path.iterdir()} == {
            "steps.csv",
            "steps-checks.csv",
            "flatness.csv",
            "profile.txt",
            "retriever.csv",
            "retriever-checks.csv",
        }
        for checks in ("steps-checks.csv", "retriever-checks.csv"):
            assert ",False," not in (tmp_path / checks).read_text()

    def test_error_without_a_gpu(self):
        finished = self.run(CUDA_VISIBLE_DEVICES="")
        assert finished.returncode == 2
        assert "no CUDA device" in finished.stderr


class TestInterpreted:
    __test__ = INTERPRETED

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.usefixtures("layout")
    def test_equals_the_oracle_on_random_catalogs(self, form):
        @settings(max_examples=10)
        @given(
            catalog=catalogs(),
            batch_size=st.integers(1, 3),
            beam_width=st.sampled_from([1, 2, 5, 7, 20]),
            normalize=st.sampled_from(["codes", "allowed", None]),
            dense=st.sampled_from(["auto", "all", "none"]),
        )
        def check(catalog, batch_size, beam_width, normalize, dense):
            levels = dense_levels_of(dense, catalog.num_levels)
            options = {"beam_width": beam_width, "normalize": normalize, "dense_levels": levels}
            test_contract.assert_equals_oracle(catalog, KERNEL, batch_size, **options)

        with numbers(**FORMS[form]):
            check()

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("normalize", ["codes", "allowed", None])
    @pytest.mark.usefixtures("layout")
    def test_ragged_sids(self, form, normalize):
        with numbers(**FORMS[form]):
            test_ragged.assert_equals_oracle(test_ragged.NAMES, KERNEL, 2, 5, normalize, "auto")
            test_ragged.assert_equals_oracle(test_ragged.NAMES, KERNEL, 1, 3, normalize, ())

    @pytest.mark.parametrize("form", FORMS)
    def test_candidates(self, form):
        index = hr.build_index(hr.Catalog(np.random.default_rng(0).integers(0, 3, (40, 3)), codebook_sizes=3))
        with numbers(**FORMS[form]):
            test_candidates.check_equals_sets(index, KERNEL, [[3, 30, 7], [], list(range(40)), [39], []])

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize(
        ("batch_size", "beam_width", "normalize"),
        [(1, 1, "codes"), (3, 3, "allowed"), (2, 9, None)],
    )
    @pytest.mark.usefixtures("layout")
    def test_equals_the_array_kernel(self, form, batch_size, beam_width, normalize):
        with numbers(**FORMS[form]):
            assert_equals_array(mixed_index(), batch_size=batch_size, beam_width=beam_width, normalize=normalize)

    @pytest.mark.parametrize("form", ["as shipped", "sieved, small"])
    def test_more_beams_than_a_warp(self, form):
        with numbers(**FORMS[form]):
            assert_equals_array(mixed_index(), batch_size=1, beam_width=33)

    def test_70_and_300_beams(self):
        rng = np.random.default_rng(5)
        index = hr.build_index(hr.Catalog(rng.integers(0, 40, (600, 2)), codebook_sizes=40), dense_levels=())
        for form, widths in (("as shipped", (70, 300)), ("sieved", (300,))):
            with numbers(**FORMS[form]):
                for width in widths:
                    assert assert_equals_array(index, batch_size=1, beam_width=width).num_valid.tolist() == [width]

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.usefixtures("layout")
    def test_edges(self, form):
        edges = test_contract.TestEdges()
        with numbers(**FORMS[form]):
            edges.test_three_items_and_five_beams(KERNEL)
            edges.test_one_item(KERNEL)
            edges.test_one_level(KERNEL)
            edges.test_codebooks_of_one(KERNEL)
            for normalize in ("codes", "allowed", None):
                edges.test_empty_catalog(KERNEL, normalize)

    def test_more_beams_than_candidates(self):
        for form in ("as shipped", "sieved"):
            with numbers(**FORMS[form]):
                catalog = hr.Catalog(np.random.default_rng(0).integers(0, 8, (100, 2)), codebook_sizes=8)
                test_contract.assert_equals_oracle(catalog, KERNEL, batch_size=1, beam_width=130)

    @pytest.mark.usefixtures("layout")
    def test_wide_codebooks(self):
        test_contract.TestEdges().test_codebook_of_exactly_16_bits(KERNEL)
        test_contract.TestEdges().test_wide_codebook_and_node_with_most_items(KERNEL)

    def test_20_levels(self):
        catalog = hr.Catalog(np.random.default_rng(2).integers(0, 2, (5, 20)), codebook_sizes=2)
        test_contract.assert_equals_oracle(catalog, KERNEL, batch_size=1, beam_width=4)

    @pytest.mark.parametrize("normalize", ["codes", "allowed", None])
    @pytest.mark.usefixtures("layout")
    def test_bitmap_of_many_words(self, normalize):
        rng = np.random.default_rng(3)
        sids = np.stack([np.repeat(np.arange(3), 2000), rng.integers(0, 5000, 6000)], axis=1)
        index = hr.build_index(hr.Catalog(sids, codebook_sizes=(3, 5000)), dense_levels=[1])
        assert_equals_array(index, batch_size=2, beam_width=9, normalize=normalize)

    @pytest.mark.parametrize("form", ["as shipped", "sieved, small", "listed, small"])
    def test_special_logits(self, form):
        marks = vars(test_step.test_special_logits_equal_the_oracle)["pytestmark"]
        rows = next(mark.args[1] for mark in marks if mark.args[0] == "row")
        with numbers(**FORMS[form]):
            for row in rows:
                for normalize in ("codes", "allowed", None):
                    for dense_levels in test_step.DENSE_LEVELS:
                        test_step.test_special_logits_equal_the_oracle(KERNEL, dense_levels, normalize, row)

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("normalize", ["codes", "allowed"])
    def test_temperature(self, form, normalize):
        sids = np.random.default_rng(6).integers(0, 33, (60, 2))
        catalog = hr.Catalog(sids, codebook_sizes=33)
        with numbers(**FORMS[form]):
            for temperature, dense in ((0.4, "all"), (3.0, "none")):
                test_temperature.assert_search_equals_oracle(catalog, KERNEL, 7, temperature, normalize, dense)

    @pytest.mark.parametrize("form", FORMS)
    def test_order_of_equal_scores(self, form):
        @settings(max_examples=8)
        @given(
            catalog=catalogs(),
            beam_width=st.sampled_from([1, 5, 17]),
            dense=st.sampled_from(["all", "none"]),
            highest=st.sampled_from([0, 1]),
        )
        def check(catalog, beam_width, dense, highest):
            test_ties.assert_equals_oracle(catalog, KERNEL, beam_width, dense=dense, highest=highest)

        with numbers(**FORMS[form]):
            check()
            test_ties.test_a_sid_follows_the_sids_that_continue_it(KERNEL)

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("value", [0.0, -3.4e38, 3.4e38])
    def test_equal_scores_keep_every_beam_once(self, form, value):
        import torch

        rng = np.random.default_rng(4)
        index = hr.build_index(hr.Catalog(rng.integers(0, 33, (90, 2)), codebook_sizes=33), dense_levels=[0, 1])
        device_index = index.to("torch")
        beams = hr.init_beams(device_index, 1)
        with numbers(**FORMS[form]):
            for width in (20, 30):
                logits = torch.full((1, beams.states.shape[1], 33), value)
                beams = hr.step(device_index, beams, logits, beam_width=width, kernel="triton", normalize=None)
        assert beams.num_valid.tolist() == [30]
        assert len(set(map(tuple, beams.codes[0].tolist()))) == 30
        assert index.contains(to_numpy(beams.codes[0])).all()

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
    @pytest.mark.parametrize("form", ["as shipped", "sieved, small"])
    def test_float_types(self, form, dtype):
        import torch

        with numbers(**FORMS[form]):
            assert_equals_array(
                mixed_index(), batch_size=1, beam_width=5, change=lambda logits: logits.to(getattr(torch, dtype))
            )

    @pytest.mark.parametrize("form", ["as shipped", "sieved, small"])
    def test_logits_need_not_be_contiguous(self, form):
        def slice_of_a_vocabulary(logits):
            vocabulary = logits.new_full((*logits.shape[:2], logits.shape[2] + 11), INF)
            vocabulary[..., 3:-8] = logits
            return vocabulary[..., 3:-8]

        def every_other(logits):
            return logits.repeat_interleave(2, -1)[..., ::2]

        with numbers(**FORMS[form]):
            for change in (slice_of_a_vocabulary, every_other):
                assert_equals_array(mixed_index(), batch_size=1, beam_width=5, change=change)

    def test_dead_and_live_requests_in_one_batch(self):
        import torch

        index = mixed_index()
        for form in FORMS.values():
            with numbers(**form):
                device_index = index.to("torch")
                beams = hr.init_beams(device_index, 2)
                for size in SIZES:
                    logits = torch.zeros(2, beams.states.shape[1], size)
                    logits[1] = -INF
                    beams = hr.step(device_index, beams, logits, beam_width=4, kernel="triton")
            assert beams.num_valid.tolist() == [4, 0]
            assert (beams.codes[1] == -1).all()

    @pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
    def test_torch_compile_makes_one_graph(self):
        import torch

        def step(device_index, beams, logits):
            return hr.step(device_index, beams, logits, beam_width=6, kernel="triton")

        torch.compiler.reset()
        compiled = torch.compile(step, fullgraph=True, dynamic=False, backend="aot_eager")
        index = mixed_index()
        device_index, model = index.to("torch"), FakeModel(SIZES)
        beams = hr.init_beams(device_index, 2)
        for _ in SIZES:
            logits = torch.from_numpy(model(beams))
            expected = step(device_index, beams, logits)
            beams = compiled(device_index, beams, logits)
            assert (beams.codes == expected.codes).all()

    def test_only_plain_tensors_skip_the_dispatcher(self, monkeypatch):
        import torch

        from hedgerow.decode.kernels import triton

        launched = []
        compute = triton._compute

        def counted(*arguments, **options):
            launched.append(1)
            return compute(*arguments, **options)

        monkeypatch.setattr(triton, "_compute", counted)
        device_index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [2, 2]])).to("torch")
        beams = hr.init_beams(device_index, 1)

        def scores_of(logits):
            return hr.step(device_index, beams, logits, beam_width=2, kernel="triton").scores

        logits = torch.tensor([[[0.1, 0.7, 0.2]]])
        expected = scores_of(logits)
        assert launched == [1]
        assert torch.equal(torch.func.vmap(scores_of)(logits[None])[0], expected)
        with pytest.raises(RuntimeError, match="no autograd formula"):
            scores_of(logits.clone().requires_grad_()).sum().backward()
        assert launched == [1]

    def test_torch_library_opcheck(self):
        import torch

        from hedgerow.decode.kernels.triton import _step

        for level in mixed_index().to("torch").levels:
            state = torch.zeros(2, 3, dtype=torch.int32)
            torch.library.opcheck(
                _step,
                (
                    torch.randn(2, 3, level.codebook_size),
                    torch.zeros(2, 3, 1, dtype=torch.int32),
                    torch.zeros(2, 3),
                    state,
                    level.codes,
                    level.child_start,
                    level.forks,
                    level.allowed,
                    level.codebook_size,
                    level.max_branch,
                    4,
                    "codes",
                ),
            )
