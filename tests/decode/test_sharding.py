"""Sharding in JAX, as in the paper: requests are divided over devices, and each device has the whole index."""

import os
import subprocess
import sys

import pytest

SETUP = """
from functools import partial

import jax, numpy as np
import hedgerow as hr
from jax.sharding import AxisType, NamedSharding, PartitionSpec

DEVICES, BATCH, WIDTH, SIZES = 8, 16, 20, (4, 64, 300)
assert len(jax.devices()) == DEVICES
rng = np.random.default_rng(0)
sids = np.stack([rng.integers(0, size, 2000) for size in SIZES], axis=1)
index = hr.build_index(hr.Catalog(sids, codebook_sizes=SIZES))
"""

AUTO = """
mesh = jax.make_mesh((DEVICES,), ("batch",), axis_types=(AxisType.Auto,))
whole, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))
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

EXPLICIT = """
mesh = jax.make_mesh((DEVICES,), ("batch",), axis_types=(AxisType.Explicit,))
constraint = index.constraint(rng.random(2000) < 0.5, order="index")
options = {"constraints": [constraint, None] * (BATCH // 2), "exclude": [[1, 2], None] * (BATCH // 2)}
step = jax.jit(hr.step, static_argnames="beam_width")


def split(array):
    return jax.device_put(array, NamedSharding(mesh, PartitionSpec("batch", *[None] * (array.ndim - 1))))


device_index = index.to("jax")
for prepared, host in (
    (None, None),
    (hr.prepare_constraints(device_index, BATCH, **options), hr.prepare_constraints(index, BATCH, **options)),
):
    beams, expected = jax.tree.map(split, hr.init_beams(device_index, BATCH)), hr.init_beams(index, BATCH)
    with jax.set_mesh(mesh):
        for size in SIZES:
            logits = rng.normal(size=(BATCH, beams.states.shape[1], size)).astype(np.float32)
            beams = step(device_index, beams, split(logits), beam_width=WIDTH, constraints=prepared)
            expected = hr.step(index, expected, logits, beam_width=WIDTH, constraints=host)
            assert beams.codes.sharding.spec[0] == "batch"
            assert (np.asarray(beams.codes) == expected.codes).all()
print("equal on", DEVICES)
"""


@pytest.mark.parametrize("program", [AUTO, EXPLICIT], ids=["auto", "explicit"])
def test_requests_on_eight_devices(program):
    pytest.importorskip("jax")
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    finished = subprocess.run(
        [sys.executable, "-c", SETUP + program], capture_output=True, text=True, env=os.environ | flags, check=False
    )
    assert finished.stdout.strip() == "equal on 8", finished.stderr
