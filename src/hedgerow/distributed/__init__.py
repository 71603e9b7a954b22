"""Searches over several processes of PyTorch: the head of a model divided by its columns."""

from hedgerow.errors import MissingDependencyError

try:
    from hedgerow.distributed.columns import check_code_ranges, even_code_ranges, gather_over
except ModuleNotFoundError as error:
    # An import error of another package is a fault, which the message about the extra would hide.
    if error.name != "torch":
        raise
    raise MissingDependencyError.of("hedgerow.distributed", "torch", "torch") from error

__all__ = ["check_code_ranges", "even_code_ranges", "gather_over"]
