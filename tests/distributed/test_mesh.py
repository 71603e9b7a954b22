"""The columns of a head over a mesh of JAX: 8 devices, 2 groups of requests on 4 ranks each."""

import os
import subprocess
import sys

import pytest

MESH = """
import jax, numpy as np
import hedgerow as hr
from jax.sharding import AxisType, PartitionSpec

RANKS, BATCH, WIDTH, SIZES = 4, 2, 20, (6, 64, 30, 9)
assert len(jax.devices()) == 2 * RANKS
rng = np.random.default_rng(0)
sids = np.stack([rng.integers(0, size, 2000) for size in SIZES], axis=1)
sids[:900, :2] = sids[0, :2]
mesh = jax.make_mesh((2, RANKS), ("batch", "codes"), axis_types=(AxisType.Auto,) * 2)
batch = PartitionSpec("batch")


def step_over_mesh(share, normalize):
    def step(device_index, beams, logits):
        first = jax.lax.axis_index("codes") * share
        return hr.step(
            device_index, beams, logits, beam_width=WIDTH, normalize=normalize,
            code_range=(first, first + share), gather=lambda x: jax.lax.all_gather(x, "codes"),
        )

    specs = (PartitionSpec(), batch, PartitionSpec("batch", None, "codes"))
    # all_gather gives every rank the same beams, which the check of shard_map cannot know.
    return jax.jit(jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=batch, check_vma=False))


index = hr.build_index(hr.Catalog(sids, codebook_sizes=SIZES), dense_levels=(0, 2))
device_index = index.to("jax")
for normalize in ("codes", "allowed", None):
    beams, expected = hr.init_beams(device_index, BATCH), hr.init_beams(index, BATCH)
    for size in SIZES:
        logits = rng.normal(size=(BATCH, beams.states.shape[1], size)).astype(np.float32)
        share = -(-size // RANKS)
        # Columns past the last code are never candidates, whatever their logits are.
        padded = np.pad(logits, ((0, 0), (0, 0), (0, share * RANKS - size)), constant_values=9.0)
        beams = step_over_mesh(share, normalize)(device_index, beams, padded)
        expected = hr.step(index, expected, logits, beam_width=WIDTH, normalize=normalize, kernel="array")
        for name in ("codes", "states", "parents"):
            assert (np.asarray(getattr(beams, name)) == getattr(expected, name)).all(), (normalize, size, name)
        np.testing.assert_allclose(beams.scores, expected.scores, rtol=1e-5, atol=1e-5)
        assert normalize is not None or (np.asarray(beams.scores) == expected.scores).all()
print("equal on", RANKS)
"""


def test_columns_over_a_mesh_of_jax():
    pytest.importorskip("jax")
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    finished = subprocess.run(
        [sys.executable, "-c", MESH], capture_output=True, text=True, env=os.environ | flags, check=False
    )
    assert finished.stdout.strip() == "equal on 4", finished.stderr
