"""The number of threads of the Numba kernel."""

import sys

import pytest

pytest.importorskip("numba")

from hedgerow.decode.kernels import threads
from hedgerow.decode.kernels.threads import LOGITS_PER_THREAD, kernel_threads, step_threads

LARGE = 64 * LOGITS_PER_THREAD


@pytest.fixture
def limits(monkeypatch):
    """Set the limits: of Numba, of PyTorch (None: it is not loaded), and of the container."""

    def set_limits(*, numba=16, torch=16, cores=16, openmp=None):
        module = None if torch is None else type("Torch", (), {"get_num_threads": staticmethod(lambda: torch)})
        monkeypatch.setitem(sys.modules, "torch", module)
        monkeypatch.setattr(threads, "get_num_threads", lambda: numba)
        monkeypatch.setattr(threads, "usable_cores", lambda: cores)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if openmp is not None:
            monkeypatch.setenv("OMP_NUM_THREADS", openmp)

    return set_limits


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, 16),
        ({"numba": 3}, 3),
        ({"torch": 5}, 5),
        ({"cores": 2}, 2),
        ({"torch": None}, 16),
        ({"torch": None, "openmp": "4,2"}, 4),
        ({"torch": None, "openmp": "many"}, 16),
        ({"torch": None, "openmp": "0"}, 16),
        # PyTorch has read OMP_NUM_THREADS; a later torch.set_num_threads is what counts.
        ({"torch": 8, "openmp": "1"}, 8),
    ],
)
def test_the_smallest_limit(limits, given, expected):
    limits(**given)
    assert step_threads(LARGE) == expected


def test_small_steps_run_on_one_thread(limits):
    limits()
    counts = [step_threads(logits) for logits in (0, 1, 2 * LOGITS_PER_THREAD - 1, 2 * LOGITS_PER_THREAD, LARGE)]
    assert counts == [1, 1, 1, 2, 16]


def test_the_settings_are_restored():
    import numba

    before = numba.get_num_threads()
    torch = sys.modules.get("torch")
    torch_before = torch and torch.get_num_threads()
    with kernel_threads(1):
        assert numba.get_num_threads() == 1
    assert numba.get_num_threads() == before
    assert (torch and torch.get_num_threads()) == torch_before
