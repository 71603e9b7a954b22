"""Searches in JAX with 64-bit types, which a process turns on before its first array."""

import subprocess
import sys

import pytest

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
import hedgerow as hr
rng = np.random.default_rng(0)
catalog = hr.Catalog(rng.integers(0, 64, (500, 3)), codebook_sizes=64)
tables = [rng.normal(size=(2, m, 64)).round(1) for m in (1, 9, 9)]
for layout in ("plain", "compact"):
    for dense in ("auto", []):
        index = hr.build_index(catalog, layout=layout, dense_levels=dense)
        on_jax = index.to("jax")
        for dtype in (jnp.float32, jnp.float64):
            found = hr.beam_search(on_jax, lambda b: jnp.asarray(tables[b.level], dtype), batch_size=2, beam_width=9)
            right = hr.beam_search(index, lambda b: tables[b.level], batch_size=2, beam_width=9)
            assert np.array_equal(found.codes, right.codes)
            assert found.codes.dtype == found.states.dtype == np.int32
print("equal")
"""


def test_64_bit_types_give_the_same_beams():
    pytest.importorskip("jax")
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.stdout == "equal\n", done.stderr
