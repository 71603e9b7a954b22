"""An error while torch.compile traces. Imported only then: it needs PyTorch."""

from __future__ import annotations

from typing import NoReturn

import torch

from hedgerow.errors import ConstraintError


class TracedConstraintError(ConstraintError, AssertionError):
    """A ConstraintError that leaves torch.compile as it is: of the other kinds, it raises an error of its own."""


# The function runs while Dynamo traces; an error that Dynamo traces would let the frame run without it.
@torch.compiler.assume_constant_result
def refuse_sets() -> NoReturn:
    """Refuse constraints that are not prepared.

    Raises:
        ConstraintError: always.
    """
    raise TracedConstraintError(
        "constraint sets and exclusions cannot be prepared inside torch.compile. Prepare them outside, and pass the "
        "result as constraints=: hr.prepare_constraints(device_index, batch_size, constraints=..., exclude=...)."
    )
