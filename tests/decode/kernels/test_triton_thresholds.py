"""The thresholds of the shortlist, in Triton's interpreter, which an environment variable enables for a process."""

# PyTorch and Triton are imported where they are used: in the process of the interpreter.
# pyright: reportPossiblyUnboundVariable=false

from importlib.util import find_spec

import numpy as np
import pytest
from interpreter import INTERPRETED, assert_passes_interpreted

LARGEST = 2**31 - 1

pytestmark = pytest.mark.skipif(
    not (find_spec("torch") and find_spec("triton")), reason="PyTorch or Triton is not installed"
)

if INTERPRETED:
    import torch
    import triton
    import triton.language as tl

    from hedgerow.decode.kernels.triton_kernels import _last_number, _threshold

    @triton.jit
    def threshold(peaks, out, size, wanted, BLOCK: tl.constexpr):  # noqa: N803
        place = tl.arange(0, BLOCK)
        least, reached = _threshold(tl.load(peaks + place, mask=place < size, other=-2147483647), wanted)
        tl.store(out, least)
        tl.store(out + 1, reached)

    @triton.jit
    def last_number(numbers, out, size, wanted, BLOCK: tl.constexpr):  # noqa: N803
        place = tl.arange(0, BLOCK)
        tl.store(out, _last_number(tl.load(numbers + place, mask=place < size, other=2147483647), wanted))


@pytest.mark.skipif(INTERPRETED, reason="this is the process of the interpreter")
def test_in_the_interpreter():
    assert "2 passed" in assert_passes_interpreted(__file__)


@pytest.mark.skipif(not INTERPRETED, reason="test_in_the_interpreter starts a process for these")
class TestThresholds:
    def test_as_many_peaks_as_wanted_reach_it(self):
        rng, out = np.random.default_rng(0), torch.zeros(2, dtype=torch.int32)
        dead = int(ordered(np.array([-np.inf], np.float32))[0])
        for case in range(200):
            size, wanted = int(rng.integers(1, 65)), int(rng.integers(1, 70))
            scores = (rng.normal(size=size) * (1, 1e30, 1e-30, 1)[case % 4]).astype(np.float32)
            # Every fourth case has many equal scores.
            scores = np.round(scores) if case % 4 == 3 else scores
            scores[rng.random(size) < 0.2 * (case % 3)] = -np.inf
            peaks = ordered(scores)
            threshold[(1,)](torch.from_numpy(peaks), out, size, wanted, BLOCK=64)  # pyright: ignore
            least, reached = out.tolist()
            live = int((peaks > dead).sum())
            assert reached == (peaks >= least).sum()
            if live < wanted:
                assert (least, reached) == (dead + 1, live)
            else:
                best = np.sort(peaks)[-wanted]
                assert reached == wanted or (least == best and reached > wanted)

    def test_exactly_as_many_numbers_as_wanted(self):
        rng, out = np.random.default_rng(1), torch.zeros(1, dtype=torch.int32)
        for case in range(100):
            numbers = ((50, 2**20, LARGEST - 1)[case % 3] - rng.permutation(50)[: 1 + case % 50]).astype(np.int32)
            wanted = int(rng.integers(1, len(numbers) + 1))
            padded = torch.from_numpy(np.append(numbers, np.full(3, LARGEST, np.int32)))
            last_number[(1,)](padded, out, len(padded), wanted, BLOCK=64)  # pyright: ignore
            assert (numbers <= int(out[0])).sum() == wanted


def ordered(scores: np.ndarray) -> np.ndarray:
    """As the kernels order float32 scores as int32."""
    bits = scores.view(np.int32)
    return bits ^ ((bits >> 31) & np.int32(LARGEST))
