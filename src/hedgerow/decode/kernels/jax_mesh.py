"""The step on a JAX mesh with Explicit axes, which are the default of `jax.make_mesh`."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec, auto_axes, get_abstract_mesh

from hedgerow.decode.beams import Beams
from hedgerow.decode.kernels.array import StepInput, array_step


def sharded_array_step(inputs: StepInput) -> Beams:
    """Compute what `array_step` computes, on any mesh.

    With Explicit axes every gather would need an output sharding; here XLA chooses them. The batch stays divided among
    the devices as the beams are.
    """
    if AxisType.Explicit not in get_abstract_mesh().axis_types:
        return array_step(inputs)
    spec = jax.typeof(inputs.beams.states).sharding.spec
    batch = spec[0] if len(spec) else None
    rows, codes = PartitionSpec(batch, None), PartitionSpec(batch, None, None)

    def step(level: Any, beams: Beams, logits: Any, constraints: Any) -> Beams:
        return array_step(inputs._replace(level=level, beams=beams, logits=logits, constraints=constraints))

    sharding = Beams(codes=codes, scores=rows, states=rows, parents=rows)
    compute: Any = auto_axes(step, out_sharding=sharding)
    return compute(inputs.level, inputs.beams, inputs.logits, inputs.constraints)
