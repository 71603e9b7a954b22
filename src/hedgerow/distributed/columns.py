"""The columns of a head that is divided among the processes of a group, and the exchange between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor

from hedgerow.decode.device import DeviceIndex
from hedgerow.errors import ArgumentError, BackendError
from hedgerow.index.trie import Trie


def gather_over(group: Any = None) -> Callable[[Tensor], Tensor]:
    """Make the `gather` of `hr.step` and `hr.beam_search` for the processes of a group: an all-gather.

    Every process must call the step with the same beams. A step exchanges its candidates (12 bytes each), and with
    `normalize="codes"` or `"allowed"` before them the normalizers of its beams (8 bytes each).

    Args:
        group: a process group of `torch.distributed`. Default: all processes.

    Returns:
        A function that maps a tensor to [ranks, ...], the tensors of all processes in the order of their ranks.

    Raises:
        BackendError: `torch.distributed` is not initialized.

    Examples:
        ```python
        import torch
        import torch.distributed as dist
        import hedgerow as hr
        from hedgerow.distributed import even_code_ranges, gather_over

        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [3, 2]]))
        ranges = even_code_ranges(index)


        def logits_of_this_rank(beams):
            first, stop = ranges[beams.level]
            return torch.zeros(*beams.states.shape, stop - first)


        beams = hr.beam_search(
            index.to("torch"),
            logits_of_this_rank,
            batch_size=1,
            beam_width=5,
            code_ranges=ranges,
            gather=gather_over(),
        )
        assert beams.num_valid.tolist() == [3]
        dist.destroy_process_group()
        ```
    """
    num_ranks = _size_of(group)

    def gather(x: Tensor) -> Tensor:
        if x.requires_grad:
            raise BackendError(
                "gradients do not pass between ranks. Use torch.no_grad(), or detach the logits and beams."
            )
        of_ranks = x.new_empty((num_ranks, *x.shape))
        dist.all_gather(list(of_ranks), x.contiguous(), group=group)
        return of_ranks

    return gather


def even_code_ranges(index: Trie | DeviceIndex, group: Any = None) -> list[tuple[int, int]]:
    """The codes of each level whose logits this process computes, if the columns of each level are divided evenly.

    Args:
        index: the trie.
        group: a process group of `torch.distributed`. Default: all processes.

    Returns:
        (first, stop) for each of the L levels: `code_ranges` of `hr.beam_search`.

    Raises:
        BackendError: `torch.distributed` is not initialized.

    Examples:
        ```python
        import torch.distributed as dist
        import hedgerow as hr
        from hedgerow.distributed import even_code_ranges

        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], codebook_sizes=(4, 8)))
        assert even_code_ranges(index) == [(0, 4), (0, 8)]
        dist.destroy_process_group()
        ```
    """
    num_ranks, rank = _size_of(group), dist.get_rank(group)
    sizes = (level.codebook_size for level in index.levels)
    return [(rank * size // num_ranks, (rank + 1) * size // num_ranks) for size in sizes]


def check_code_ranges(index: Trie | DeviceIndex, code_ranges: Sequence[tuple[int, int]], group: Any = None) -> None:
    """Check that the code ranges of all processes contain each code of each level once.

    A step cannot check this: with a code on two ranks it would return a SID twice, with a code on none it would miss
    SIDs. Call it on every process, once per index; all of them raise the same error.

    Args:
        index: the trie.
        code_ranges: (first, stop) for each of the L levels, of this process.
        group: a process group of `torch.distributed`. Default: all processes.

    Raises:
        ArgumentError: a code is on no rank or on several, or ranges do not fit the index.
        BackendError: `torch.distributed` is not initialized.

    Examples:
        ```python
        import torch.distributed as dist
        import hedgerow as hr
        from hedgerow.distributed import check_code_ranges

        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], codebook_sizes=(4, 8)))
        check_code_ranges(index, [(0, 4), (0, 8)])
        try:
            check_code_ranges(index, [(0, 4), (0, 7)])
        except hr.ArgumentError as error:
            assert "level 1: code 7 is on no rank" in str(error)
        dist.destroy_process_group()
        ```
    """
    of_ranks: list[Any] = [None] * _size_of(group)
    dist.all_gather_object(of_ranks, [tuple(map(int, code_range)) for code_range in code_ranges], group=group)
    if any(len(ranges) != len(index.levels) for ranges in of_ranks):
        raise ArgumentError(
            f"code_ranges must have a (first, stop) for each of the {len(index.levels)} levels; the ranks have "
            f"{', '.join(str(len(ranges)) for ranges in of_ranks)}."
        )
    for level, ranges in enumerate(zip(*of_ranks, strict=True)):
        _check_level(level, index.levels[level].codebook_size, ranges)


def _check_level(level: int, size: int, ranges: Sequence[tuple[int, int]]) -> None:
    given = f"Code ranges of the ranks: {', '.join(map(str, ranges))}; codes: 0 to {size - 1}."
    end = 0
    for first, stop in sorted(code_range for code_range in ranges if code_range[0] != code_range[1]):
        if not 0 <= first <= stop <= size:
            raise ArgumentError(f"level {level}: {(first, stop)} is not a range of its codes. {given}")
        if first != end:
            where = "on no rank" if first > end else "on several ranks"
            raise ArgumentError(f"level {level}: code {min(first, end)} is {where}. {given}")
        end = stop
    if end != size:
        raise ArgumentError(f"level {level}: code {end} is on no rank. {given}")


def _size_of(group: Any) -> int:
    """The number of processes of a group."""
    if not (dist.is_available() and dist.is_initialized()):
        raise BackendError(
            "torch.distributed is not initialized. Start the processes with torchrun, and call "
            "torch.distributed.init_process_group in each."
        )
    return dist.get_world_size(group)
