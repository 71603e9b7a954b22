"""Where the Pallas kernels run. Imports them only if they do."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax.core import Tracer
from jax.sharding import AxisType, get_abstract_mesh

from hedgerow.decode.beams import Beams
from hedgerow.decode.device import DeviceLevel
from hedgerow.decode.kernels.array import StepInput
from hedgerow.decode.ops import Array


def is_automatic() -> bool:
    """Whether `kernel="auto"` is the Pallas kernels: on one TPU, or where `jax.shard_map` divides arrays among several.

    XLA cannot divide such a kernel among devices by itself.
    """
    if jax.default_backend() != "tpu":
        return False
    axis_types = get_abstract_mesh().axis_types
    return jax.device_count() == 1 or (bool(axis_types) and all(kind == AxisType.Manual for kind in axis_types))


def obstacle_of(level: DeviceLevel, logits: Array) -> str | None:
    """Why the Pallas kernels cannot run, or None. A trace can be for a TPU elsewhere, as in `jax.export`."""
    from hedgerow.decode.kernels import pallas

    is_here = jax.default_backend() == "tpu" or pallas.INTERPRET
    if not is_here and not isinstance(logits, Tracer):
        return f"the arrays are on {jax.default_backend()!r}, and these kernels need a TPU"
    return pallas.obstacle_of(level, logits)


def kernel_of(name: str) -> Callable[[StepInput], Beams]:
    """The step by name: "pallas", or "auto", which computes the array step where XLA does not compile for a TPU."""
    from hedgerow.decode.kernels import pallas

    return pallas.pallas_step if name == "pallas" else pallas.pallas_or_array_step
