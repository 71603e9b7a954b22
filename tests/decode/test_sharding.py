"""Sharding in JAX, as in the paper: requests are divided over devices, and each device has the whole index."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
from functools import partial

import jax, numpy as np
import hedgerow as hr
from jax.sharding import AxisType, NamedSharding, PartitionSpec

DEVICES, BATCH, WIDTH, SIZES = 8, 16, 20, (4, 64, 300)
assert len(jax.devices()) == DEVICES
mesh = jax.make_mesh((DEVICES,), ("batch",), axis_types=(AxisType.Auto,))
whole, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))

rng = np.random.default_rng(0)
sids = np.stack([rng.integers(0, size, 2000) for size in SIZES], axis=1)
index = hr.build_index(hr.Catalog(sids, codebook_sizes=SIZES))
device_index = index.to("jax", device=whole)
step = partial(hr.step, beam_width=WIDTH)
jitted = jax.jit(step, in_shardings=(whole, split, split), out_shardings=split)
# With shard_map no device needs rows of another. Without it, XLA gathers all rows for a top-k on CPUs.
specs = (PartitionSpec(), PartitionSpec("batch"), PartitionSpec("batch"))
sharded = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=PartitionSpec("batch")))
beams, expected = jax.device_put(hr.init_beams(device_index, BATCH), split), hr.init_beams(index, BATCH)
for level, size in enumerate(SIZES):
    logits = rng.normal(size=(BATCH, beams.states.shape[1], size)).astype(np.float32)
    logits = jax.device_put(logits, split)
    program = sharded.lower(device_index, beams, logits).compile().as_text()
    assert "all-gather" not in program and "all-reduce" not in program, "a step communicates between devices"
    automatic = jitted(device_index, beams, logits)
    beams = sharded(device_index, beams, logits)
    np.testing.assert_array_equal(beams.codes, automatic.codes)
    expected = hr.step(index, expected, np.asarray(logits), beam_width=WIDTH)
    assert len(beams.scores.sharding.device_set) == DEVICES
    assert beams.scores.addressable_shards[0].data.shape == (BATCH // DEVICES, WIDTH)
    np.testing.assert_allclose(beams.scores, expected.scores, rtol=1e-5, atol=1e-5)
    assert (np.asarray(beams.codes) == expected.codes).all()
print("equal on", DEVICES)
"""


def test_requests_on_eight_devices():
    pytest.importorskip("jax")
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=os.environ | flags, check=False
    )
    assert finished.stdout.strip() == "equal on 8", finished.stderr
