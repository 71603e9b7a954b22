"""Compact levels in the Triton kernels, in Triton's interpreter, which needs its own process."""

# PyTorch and Triton are imported where they are used: in the process of the interpreter.
# pyright: reportPossiblyUnboundVariable=false, reportArgumentType=false
# ruff: noqa: N803

from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import INTERPRETED, assert_passes_interpreted
from shown import Request, assert_finds_allowed_items
from support import catalogs, dense_levels_of, lay_out
from test_contract import assert_equals_oracle
from test_triton import FORMS, KERNEL, SLOW, assert_equals_array, numbers

import hedgerow as hr
from hedgerow.index.compact import code_bits

SIZES = (8, 40, 300)

pytestmark = pytest.mark.skipif(
    not (find_spec("torch") and find_spec("triton")), reason="PyTorch or Triton is not installed"
)

if INTERPRETED:
    import torch
    import triton
    import triton.language as tl

    from hedgerow.decode.kernels.triton import PIVOTS, _search_steps
    from hedgerow.decode.kernels.triton_compact import codes_of, vector_children

    @triton.jit
    def children_of_all(
        high, zeros_before, blocks, out, HIGH_BITS: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr
    ):  # fmt: skip
        parent = tl.program_id(0).to(tl.int64)
        start, stop = vector_children(high, zeros_before, blocks, parent, HIGH_BITS, STEPS, WIDTH)
        tl.store(out + 2 * parent, start)
        tl.store(out + 2 * parent + 1, stop)

    @triton.jit
    def all_codes(
        codes, high, ones_before, blocks, out, size, SIZE: tl.constexpr, LOW_BITS: tl.constexpr, HIGH_BITS: tl.constexpr
    ):
        node = tl.program_id(0) * 64 + tl.arange(0, 64)
        code = codes_of(codes, high, ones_before, blocks, node, node < size, SIZE, LOW_BITS, HIGH_BITS)
        tl.store(out + node, code, mask=node < size)


@SLOW
@pytest.mark.skipif(INTERPRETED, reason="this is the process of the interpreter")
def test_in_the_interpreter():
    assert "passed" in assert_passes_interpreted(f"{__file__}::TestInterpreted")


def skewed_catalog(items: int = 200) -> hr.Catalog:
    """Parents with one child, with many and with none in between."""
    rng = np.random.default_rng(0)
    sids = np.stack([rng.integers(0, size, items) for size in SIZES], axis=1)
    sids[: items // 3, :2] = sids[0, :2]
    return hr.Catalog(sids, codebook_sizes=SIZES)


class TestInterpreted:
    __test__ = INTERPRETED

    @pytest.fixture(params=["compact", "split"], autouse=True)
    def _layout(self, request, monkeypatch):
        lay_out(request.param, monkeypatch)

    def test_children_and_codes_of_every_node(self):
        """Blocks of bits and of codes that are full, and that begin and end anywhere."""
        index = hr.build_index(skewed_catalog(700), dense_levels=())
        levels = list(zip(index.levels, index.to("torch").levels, strict=True))
        assert any(level.high is not None for _, level in levels)
        for host, level in levels:
            blocks = 0 if level.high is None else level.high.shape[0]
            assert level.low_bits is not None
            high_bits = code_bits(level.codebook_size) - level.low_bits
            out = torch.full((host.num_nodes,), -1, dtype=torch.int32)
            unread = level.codes
            all_codes[(-(-host.num_nodes // 64),)](
                level.codes, unread if level.high is None else level.high,
                unread if level.ones_before is None else level.ones_before, blocks, out, host.num_nodes,
                SIZE=level.codebook_size, LOW_BITS=level.low_bits, HIGH_BITS=high_bits,
            )  # fmt: skip
            assert (out.numpy() == host.codes_of(np.arange(host.num_nodes))).all()
            if level.high is None:
                continue
            bounds = torch.full((host.num_parents, 2), -1, dtype=torch.int32)
            steps = _search_steps(blocks, PIVOTS)
            children_of_all[(host.num_parents,)](
                level.high, level.zeros_before, blocks, bounds, HIGH_BITS=high_bits, STEPS=steps, WIDTH=PIVOTS
            )
            expected = np.stack(host.children(np.arange(host.num_parents)), axis=1)
            assert (bounds.numpy() == expected).all()

    @pytest.mark.parametrize(
        ("form", "normalize", "beam_width"),
        [("as shipped", "codes", 5), ("sieved, small", "allowed", 7), ("listed, small", None, 3)],
    )
    def test_equals_the_array_kernel(self, form, normalize, beam_width):
        index = hr.build_index(skewed_catalog())
        assert index.layout == "compact"
        with numbers(**FORMS[form]):
            assert_equals_array(index, batch_size=2, beam_width=beam_width, normalize=normalize)

    def test_equals_the_oracle_on_random_catalogs(self):
        @settings(max_examples=4)
        @given(
            catalog=catalogs(),
            beam_width=st.sampled_from([1, 5, 20]),
            normalize=st.sampled_from(["codes", "allowed"]),
            dense=st.sampled_from(["auto", "none"]),
        )
        def check(catalog, beam_width, normalize, dense):
            levels = dense_levels_of(dense, catalog.num_levels)
            options = {"beam_width": beam_width, "normalize": normalize, "dense_levels": levels}
            assert_equals_oracle(catalog, KERNEL, 2, **options)

        with numbers(**FORMS["sieved, small"]):
            check()

    def test_sets_and_exclusions(self):
        rng, catalog = np.random.default_rng(1), skewed_catalog()
        requests = [Request(None, rng.permutation(200)[:80]), Request(rng.random(200) < 0.3, np.arange(50))]
        with numbers(**FORMS["as shipped"]):
            assert_finds_allowed_items(catalog, KERNEL, requests, 6, normalize="allowed")
