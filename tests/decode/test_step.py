"""One step: special values, dtypes, parents, and invalid arguments."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support import BACKENDS, KERNELS, FakeModel, array_of, require, search, stepper

import hedgerow as hr
from hedgerow.decode.ops import to_numpy
from hedgerow.decode.oracle import oracle_step

INF, NAN = float("inf"), float("nan")
# No level dense, and both.
DENSE_LEVELS = [(), (0, 1)]


@pytest.fixture(params=BACKENDS)
def backend(request):
    pytest.importorskip(request.param)
    return request.param


def four_items(dense_levels):
    return hr.build_index(hr.Catalog([[0, 0], [0, 2], [1, 1], [2, 2]], codebook_sizes=4), dense_levels=dense_levels)


def first_step(index, kernel, row, **options):
    backend, _, name = kernel.partition("-")
    device_index = index.to(backend)
    logits = array_of(backend, np.asarray(row, np.float32).reshape(1, 1, -1))
    return stepper(backend, name or "auto")(device_index, hr.init_beams(device_index, 1), logits, **options)


@pytest.mark.parametrize("dense_levels", DENSE_LEVELS)
@pytest.mark.parametrize("normalize", ["codes", "allowed", None])
@pytest.mark.parametrize(
    "row",
    [
        [0.0, -INF, 1.0, 5.0],
        [NAN, 0.5, NAN, NAN],
        [-INF, -INF, -INF, 0.0],
        [NAN, NAN, NAN, NAN],
        [INF, 0.0, 1.0, 2.0],
        [INF, INF, INF, INF],
        [-INF, INF, NAN, 0.0],
        [3.0e38, -3.0e38, 1.0, 0.0],
        [-3.4e38, -3.4e38, -3.4e38, -3.4e38],
        [0.0, -0.0, 0.0, 0.0],
        [1e-40, 80.0, -80.0, 1e4],
    ],
)
@pytest.mark.parametrize("kernel", KERNELS)
def test_special_logits_equal_the_oracle(kernel, dense_levels, normalize, row):
    require(kernel)
    beams = first_step(four_items(dense_levels), kernel, row, beam_width=5, normalize=normalize)
    sids = [(0, 0), (0, 2), (1, 1), (2, 2)]
    expected = oracle_step(sids, [((), 0.0)], lambda _: np.asarray(row, np.float32).tolist(), 5, normalize)
    live = int(to_numpy(beams.num_valid)[0])
    assert live == len(expected)
    np.testing.assert_allclose(to_numpy(beams.scores)[0, :live], [score for _, score in expected], rtol=1e-5, atol=1e-5)
    assert sorted(to_numpy(beams.codes)[0, :live, 0].tolist()) == sorted(prefix[0] for prefix, _ in expected)
    assert (to_numpy(beams.scores)[0, live:] == -INF).all()


def test_finite_logits_never_lose_a_live_beam(backend):
    """A model that masks with the least finite float at every level keeps its beams, with low scores."""
    index = hr.build_index(hr.Catalog([[0] * 40, [1] * 40], codebook_sizes=2))
    device_index = index.to(backend)
    beams = hr.init_beams(device_index, 1)
    for _ in range(40):
        row = np.full((1, beams.states.shape[1], 2), np.finfo(np.float32).min, np.float32)
        beams = hr.step(device_index, beams, array_of(backend, row), beam_width=2, normalize=None)
    assert to_numpy(beams.num_valid).tolist() == [2]


@pytest.mark.parametrize("dense_levels", DENSE_LEVELS)
def test_equal_scores_keep_every_beam_once(backend, dense_levels):
    index = four_items(dense_levels)
    device_index = index.to(backend)
    beams = hr.init_beams(device_index, 1)
    for _ in range(2):
        logits = array_of(backend, np.zeros((1, beams.states.shape[1], 4), np.float32))
        beams = hr.step(device_index, beams, logits, beam_width=4)
    assert sorted(map(tuple, to_numpy(beams.codes)[0].tolist())) == [(0, 0), (0, 2), (1, 1), (2, 2)]


@pytest.mark.parametrize("dense_levels", DENSE_LEVELS)
def test_parents_are_the_beams_that_are_continued(backend, dense_levels):
    index = four_items(dense_levels)
    device_index = index.to(backend)
    model = FakeModel(index.codebook_sizes)
    beams = hr.step(
        device_index, hr.init_beams(device_index, 2), array_of(backend, model(hr.init_beams(index, 2))), beam_width=3
    )
    continued = hr.step(device_index, beams, array_of(backend, model(beams)), beam_width=4)
    codes, parents, history = to_numpy(continued.codes), to_numpy(continued.parents), to_numpy(beams.codes)
    for request in range(2):
        assert (codes[request, :, 0] == history[request, parents[request], 0]).all()


def test_requests_do_not_affect_each_other(backend):
    """The model of one request bans all codes; the other request has the beams that it has alone."""
    rng = np.random.default_rng(0)
    index = hr.build_index(hr.Catalog(rng.integers(0, 6, (30, 3)), codebook_sizes=6))
    model = FakeModel(index.codebook_sizes)
    alone = search(index, backend, model, batch_size=1, beam_width=4)
    device_index = index.to(backend)
    beams = hr.init_beams(device_index, 2)
    for _ in range(3):
        logits = model(beams)
        logits[1] = -INF
        beams = hr.step(device_index, beams, array_of(backend, logits), beam_width=4)
    np.testing.assert_allclose(to_numpy(beams.scores)[0], to_numpy(alone.scores)[0], rtol=1e-6)
    assert to_numpy(beams.num_valid).tolist() == [4, 0]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("dense_levels", DENSE_LEVELS)
def test_float_types(backend, dtype, dense_levels):
    row = np.asarray([0.5, -1.25, 2.0, -INF], np.float32).reshape(1, 1, 4)
    if backend == "torch":
        import torch

        logits = torch.from_numpy(row).to(getattr(torch, dtype))
    elif backend == "jax":
        import jax.numpy as jnp

        if dtype == "float64":
            pytest.skip("JAX has float64 only if it is enabled")
        logits = jnp.asarray(row, dtype)
    else:
        logits = row.astype(pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype)
    index = four_items(dense_levels)
    device_index = index.to(backend)
    beams = hr.step(device_index, hr.init_beams(device_index, 1), logits, beam_width=3)
    expected = first_step(index, "numpy", row, beam_width=3)
    assert to_numpy(beams.scores).dtype == np.float32
    np.testing.assert_allclose(to_numpy(beams.scores), expected.scores, rtol=1e-6)


def test_float64_logits_beyond_float32_are_bounded():
    beams = hr.step(
        four_items(()), hr.init_beams(four_items(()), 1), np.asarray([[[1e300, 0.0, -1e300, 0.0]]]), beam_width=3
    )
    assert beams.num_valid.tolist() == [3]


def test_logits_need_not_be_contiguous(backend):
    index = four_items(())
    device_index = index.to(backend)
    wide = np.arange(8, dtype=np.float32).reshape(1, 1, 8)
    beams = hr.step(device_index, hr.init_beams(device_index, 1), array_of(backend, wide)[..., ::2], beam_width=3)
    expected = first_step(index, "numpy", wide[..., ::2], beam_width=3)
    np.testing.assert_allclose(to_numpy(beams.scores), expected.scores, rtol=1e-6)


def test_accepts_numpy_integers():
    index = four_items(())
    beams = hr.init_beams(index, np.int64(2))  # pyright: ignore
    assert hr.step(index, beams, np.zeros((2, 1, 4)), beam_width=np.int32(3)).states.shape == (2, 3)  # pyright: ignore


def test_gradients_do_not_depend_on_the_number_of_logits():
    torch = pytest.importorskip("torch")
    index = hr.build_index(hr.Catalog([[0], [1]], codebook_sizes=2**17)).to("torch")
    logits = torch.zeros(1, 1, 2**17, requires_grad=True)
    assert hr.step(index, hr.init_beams(index, 1), logits, beam_width=2).scores.requires_grad
    with pytest.raises(hr.BackendError, match="gradient"):
        hr.step(index, hr.init_beams(index, 1), logits, beam_width=2, kernel="native")


def wide_index(torch):
    index = hr.build_index(hr.Catalog([[0, 1], [1, 2], [1, 3]], codebook_sizes=2**14)).to("torch")
    return index, torch.randn(3, 2, 1, 2**14, generator=torch.Generator().manual_seed(0))


def scores_of(index, logits, kernel: Any = "auto"):
    beams = hr.step(index, hr.init_beams(index, len(logits)), logits, beam_width=2, kernel=kernel)
    return hr.step(index, beams, logits.expand(-1, 2, -1), beam_width=2, kernel=kernel).scores


def test_gradients_reach_the_scores_of_the_beams():
    torch = pytest.importorskip("torch")
    index, logits = wide_index(torch)
    scores = torch.zeros(2, 1, requires_grad=True)
    beams = replace(hr.init_beams(index, 2), scores=scores)
    result = hr.step(index, beams, logits[0], beam_width=2).scores
    result.sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [[2], [2]]
    with pytest.raises(hr.BackendError, match="scores of the beams require a gradient"):
        hr.step(index, beams, logits[0], beam_width=2, kernel="native")


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_forward_mode_gradients_do_not_depend_on_the_number_of_logits():
    torch = pytest.importorskip("torch")
    index, logits = wide_index(torch)
    direction = torch.randn(2, 1, 2**14, generator=torch.Generator().manual_seed(1))
    scores, tangent = torch.func.jvp(lambda row: scores_of(index, row), (logits[0],), (direction,))
    _, expected = torch.func.jvp(lambda row: scores_of(index, row, "array"), (logits[0],), (direction,))
    assert tangent.abs().sum() > 0
    assert torch.equal(tangent, expected)
    with torch.autograd.forward_ad.dual_level():
        dual = scores_of(index, torch.autograd.forward_ad.make_dual(logits[0], direction))
        assert torch.equal(torch.autograd.forward_ad.unpack_dual(dual).tangent, expected)
    torch.testing.assert_close(scores, scores_of(index, logits[0]))


def test_vmap_does_not_depend_on_the_number_of_logits():
    torch = pytest.importorskip("torch")
    index, logits = wide_index(torch)
    expected = torch.stack([scores_of(index, row) for row in logits])
    torch.testing.assert_close(torch.vmap(lambda row: scores_of(index, row))(logits), expected)


FORK = """
import os, sys, numpy as np, hedgerow as hr
from hedgerow import _compiled
from hedgerow.decode.kernels import native
if sys.argv[1] == "torch":
    import torch
    torch.set_num_threads(3)
    torch.ones(1000, 1000).exp()
    _compiled._join_openmp()
native.thread_count = lambda _: 3
index = hr.build_index(hr.Catalog([[0, 1], [1, 0]], codebook_sizes=2))
logits = np.zeros((64, 1, 2), np.float32)
hr.step(index, hr.init_beams(index, 64), logits, beam_width=2, kernel="native")
child = os.fork()
if child == 0:
    found = hr.step(index, hr.init_beams(index, 64), logits, beam_width=2, kernel="native")
    os._exit(0 if (found.num_valid == 2).all() else 2)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("threads_of", ["hedgerow", "torch"])
def test_a_forked_process_starts_threads_of_its_own(threads_of):
    require("numpy-native")
    if threads_of == "torch":
        pytest.importorskip("torch")
    finished = subprocess.run(
        [sys.executable, "-c", FORK, threads_of], capture_output=True, text=True, check=True, timeout=60
    )
    assert finished.stdout.strip() == "0"


THREADS = """
import threading, numpy as np, torch, hedgerow as hr
from hedgerow import _compiled
_compiled.usable_cores = lambda: 3
_compiled.PARALLEL_FROM = 1
torch.set_num_threads(3)
print(_compiled._join_openmp(), _compiled.thread_count(1))
rng = np.random.default_rng(0)
index = hr.build_index(hr.Catalog(rng.integers(0, 50, (500, 2)), codebook_sizes=50)).to("torch")
logits = [torch.tensor(rng.normal(size=(3, width, 50)), dtype=torch.float32) for width in (1, 20)]

def search(kernel, before=None):
    beams = hr.init_beams(index, 3)
    for level in logits:
        if before is not None:
            before.exp()
        beams = hr.step(index, beams, level, beam_width=20, kernel=kernel)
    return beams

expected, found = search("array"), []
def searches():
    torch.set_num_threads(3)
    found.extend(search("native", torch.ones(300, 300)) for _ in range(200))
threads = [threading.Thread(target=searches) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(found), all(torch.equal(each.codes, expected.codes) for each in found),
      all(torch.allclose(each.scores, expected.scores) for each in found))
"""


def test_on_the_threads_of_pytorch_and_of_several_callers():
    require("torch-native")
    finished = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=True, timeout=60)
    joined, searches = finished.stdout.splitlines()
    assert joined in ("True 3", "False 3")
    assert searches == "600 True True"


class TestRejects:
    def setup_method(self):
        self.index = four_items(())
        self.beams = hr.init_beams(self.index, 2)
        self.logits = np.zeros((2, 1, 4), np.float32)

    @pytest.mark.parametrize("kernel", ["array", "native"])
    def test_beams_without_a_beam(self, kernel):
        index = hr.build_index(hr.Catalog([[0, 1], [2, 0]])).to("numpy")
        start = hr.init_beams(index, 2)
        none = {name: getattr(start, name)[:, :0] for name in ("codes", "scores", "states", "parents")}
        with pytest.raises(hr.ArgumentError, match="beams has no beams: m is 0, for 2 requests"):
            hr.step(index, replace(start, **none), np.zeros((2, 0, 3), np.float32), beam_width=2, kernel=kernel)

    @pytest.mark.parametrize("kernel", ["array", "native"])
    @pytest.mark.parametrize(
        ("name", "dtype"), [("scores", ">f4"), ("scores", "f8"), ("scores", "i4"), ("states", "i8"), ("codes", "i8")]
    )
    def test_beams_of_other_types(self, kernel, name, dtype):
        beams = replace(self.beams, **{name: getattr(self.beams, name).astype(dtype)})
        with pytest.raises(hr.ArgumentError, match="beams must have scores of float32"):
            hr.step(self.index, beams, self.logits, beam_width=2, kernel=kernel)

    @pytest.mark.parametrize("shape", [(2, 1, 5), (2, 4), (1, 1, 4), (2, 2, 4), (2, 1, 0)])
    def test_logits_of_another_shape(self, shape):
        with pytest.raises(hr.ArgumentError, match=r"\[2, 1, 4\].*got \[") as raised:
            hr.step(self.index, self.beams, np.zeros(shape, np.float32), beam_width=2)
        assert str(list(shape)) in str(raised.value)

    @pytest.mark.parametrize("width", [0, -1, 2.0, True, "3", None])
    def test_beam_width(self, width):
        with pytest.raises(hr.ArgumentError, match="beam_width"):
            hr.step(self.index, self.beams, self.logits, beam_width=width)

    @pytest.mark.parametrize("size", [0, -1, 1.0, True, None])
    def test_batch_size(self, size):
        with pytest.raises(hr.ArgumentError, match="batch_size"):
            hr.init_beams(self.index, size)

    def test_normalize(self):
        with pytest.raises(hr.ArgumentError, match="normalize"):
            hr.step(self.index, self.beams, self.logits, beam_width=2, normalize="softmax")  # pyright: ignore

    def test_integer_logits(self):
        with pytest.raises(hr.ArgumentError, match="floating-point dtype; got int64"):
            hr.step(self.index, self.beams, self.logits.astype(int), beam_width=2)

    @pytest.mark.parametrize("kernel", KERNELS)
    def test_beams_of_another_index(self, kernel):
        require(kernel)
        backend, _, name = kernel.partition("-")
        if backend == "jax":
            pytest.skip("states of JAX can be traced, so they are not checked")
        device_index = self.index.to(backend)
        beams = hr.step(device_index, hr.init_beams(device_index, 1), array_of(backend, self.logits[:1]), beam_width=1)
        far = hr.Beams(beams.codes, beams.scores, beams.states * 0 + 2**30, beams.parents)
        with pytest.raises(hr.ArgumentError, match=r"state 1073741824, but this index has 3 nodes before level 1"):
            hr.step(device_index, far, array_of(backend, self.logits[:1]), beam_width=1, kernel=name)

    def test_beams_of_inconsistent_shapes(self):
        beams = hr.Beams(self.beams.codes[:1], self.beams.scores, self.beams.states, self.beams.parents)
        with pytest.raises(hr.ArgumentError, match=r"beams must have codes \[B, m, l\].*'codes': \[1, 1, 0\]"):
            hr.step(self.index, beams, self.logits, beam_width=2)

    def test_values_of_other_types(self):
        with pytest.raises(hr.ArgumentError, match=r"expected a TrieIndex or a DeviceIndex; got NoneType"):
            hr.step(None, self.beams, self.logits, beam_width=2)  # pyright: ignore
        with pytest.raises(hr.ArgumentError, match=r"expected Beams.*got NoneType"):
            hr.step(self.index, None, self.logits, beam_width=2)  # pyright: ignore
        with pytest.raises(hr.ArgumentError, match=r"logits must be an array \[B, m, C\]; got None"):
            hr.step(self.index, self.beams, None, beam_width=2)

    def test_finished_beams(self):
        beams = hr.beam_search(self.index, lambda b: np.zeros((*b.states.shape, 4)), batch_size=2, beam_width=2)
        with pytest.raises(hr.ArgumentError, match="finished"):
            hr.step(self.index, beams, self.logits, beam_width=2)

    def test_arrays_of_another_backend(self):
        torch = pytest.importorskip("torch")
        with pytest.raises(hr.BackendError, match=r"backend 'numpy'.*Tensor"):
            hr.step(self.index, self.beams, torch.zeros(2, 1, 4), beam_width=2)
        with pytest.raises(hr.BackendError, match=r"backend 'torch'.*ndarray"):
            hr.step(self.index.to("torch"), self.beams, torch.zeros(2, 1, 4), beam_width=2)

    def test_lists_as_logits(self):
        with pytest.raises(hr.BackendError, match="logits are list"):
            hr.step(self.index, self.beams, [[[0.0] * 4]] * 2, beam_width=2)

    @pytest.mark.filterwarnings("ignore:.*(nested tensors|Sparse CSR):UserWarning")
    @pytest.mark.parametrize("kind", ["sparse_coo", "sparse_csr", "_mkldnn", "nested", "jagged"])
    def test_logits_that_are_not_dense(self, kind):
        torch = pytest.importorskip("torch")
        dense, rows = torch.zeros(2, 1, 4), [torch.zeros(1, 4)] * 2
        logits = {
            "sparse_coo": dense.to_sparse,
            "sparse_csr": dense.to_sparse_csr,
            "_mkldnn": dense.to_mkldnn,
            "nested": lambda: torch.nested.nested_tensor(rows),
            "jagged": lambda: torch.nested.nested_tensor(rows, layout=torch.jagged),
        }[kind]()
        index, word = self.index.to("torch"), "nested" if kind == "jagged" else kind
        for call in (lambda **o: hr.step(*o.values(), beam_width=2), lambda **o: hr.masked_probability(*o.values())):
            with pytest.raises(hr.ArgumentError, match=rf"must be a dense tensor; got a \S*{word} one.*to_dense"):
                call(index=index, beams=hr.init_beams(index, 2), logits=logits)

    def test_unknown_backend_and_device(self):
        with pytest.raises(hr.BackendError, match="backend must be one of 'numpy', 'torch', 'jax'; got 'tensorflow'"):
            self.index.to("tensorflow")
        with pytest.raises(hr.BackendError, match="'cuda'"):
            self.index.to("numpy", device="cuda")

    def test_devices_that_do_not_exist(self):
        pytest.importorskip("torch")
        pytest.importorskip("jax")
        with pytest.raises(hr.BackendError, match="PyTorch cannot use device 'nowhere'"):
            self.index.to("torch", device="nowhere")
        with pytest.raises(hr.BackendError, match="JAX cannot use device 'nowhere'"):
            self.index.to("jax", device="nowhere")


def test_threads_do_not_change_the_native_kernel(monkeypatch):
    require("numpy-native")
    from hedgerow.decode.kernels import native

    generator = np.random.default_rng(0)
    index = hr.build_index(hr.Catalog(generator.integers(0, 9, (200, 3)), codebook_sizes=9))
    model, options = FakeModel(index.codebook_sizes), {"batch_size": 5, "beam_width": 6}
    alone = search(index, "numpy-native", model, **options)
    for threads in (2, 3, 9):
        monkeypatch.setattr(native, "thread_count", lambda _, threads=threads: threads)
        for _ in range(20):
            together = search(index, "numpy-native", model, **options)
            np.testing.assert_array_equal(alone.scores, together.scores)
            assert (alone.codes == together.codes).all()


def test_callers_in_several_threads(monkeypatch):
    """Only one of them gets the threads of the kernel; the others work alone."""
    require("numpy-native")
    from hedgerow.decode.kernels import native

    monkeypatch.setattr(native, "thread_count", lambda _: 3)
    index = hr.build_index(hr.Catalog(np.random.default_rng(0).integers(0, 9, (200, 3)), codebook_sizes=9))
    model = FakeModel(index.codebook_sizes)
    expected = search(index, "numpy-native", model, batch_size=4, beam_width=6)

    def run(_):
        found = [search(index, "numpy-native", model, batch_size=4, beam_width=6) for _ in range(30)]
        return all((each.codes == expected.codes).all() for each in found)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(run, range(8)))


@pytest.mark.parametrize("size", [1, 15, 16, 17, 31, 32, 33, 63, 64, 100, 2049])
@pytest.mark.parametrize("dense", ["all", "none"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_native_kernel_at_edges_of_vectors(size, dense, dtype):
    """Rows of all lengths, with logits that must be bounded, of all types."""
    torch = pytest.importorskip("torch")
    require("torch-native")
    generator = torch.Generator().manual_seed(size)
    catalog = hr.Catalog(np.arange(3 * size).reshape(-1, 1) % size, codebook_sizes=size)
    index = hr.build_index(catalog, dense_levels=[0] if dense == "all" else [])
    device_index = index.to("torch")
    logits = torch.randn((3, 1, size), generator=generator).to(getattr(torch, dtype))
    for place, value in enumerate((float("nan"), float("inf"), -float("inf"), 3e38 if dtype != "float16" else 6e4)):
        logits[place % 3, 0, (7 * place) % size] = value
    for normalize in ("codes", "allowed", None):
        options = {"beam_width": 9, "normalize": normalize}
        expected = hr.step(device_index, hr.init_beams(device_index, 3), logits, kernel="array", **options)
        found = hr.step(device_index, hr.init_beams(device_index, 3), logits, kernel="native", **options)
        assert found.codes.tolist() == expected.codes.tolist()
        torch.testing.assert_close(found.scores, expected.scores, rtol=1e-5, atol=1e-5)
