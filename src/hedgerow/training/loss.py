"""The losses of a training: of the codes of each level among all codes, or among those that may follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hedgerow.catalog.ragged import ENDED
from hedgerow.decode.device import DeviceIndex
from hedgerow.decode.log_probs import log_probs
from hedgerow.errors import ArgumentError
from hedgerow.hf.searched import Searched, trie_of


class SidLoss(nn.Module):
    """The negative log-likelihood of SIDs under a constrained model: the mean of each level, summed over the levels.

    With ``normalize="allowed"``, the log-softmax of each level is over the codes that may follow the codes before it in
    the index. A model then learns nothing about which codes exist, which the search knows anyway. Search with the same
    ``normalize``. The module has no parameters.

    Args:
        index: the index of the catalog: a `TrieIndex`, or a live index or a version of it, whose removed items are not
            allowed. Later versions need another loss.
        normalize: "allowed", or "codes": over all codes of a level, as the cross-entropy of each level.
        temperature: divides the logits, as for `hedgerow.step`.

    Raises:
        ArgumentError: `index` is not an index.

    Examples:
        ```python
        import torch
        import hedgerow as hr
        from hedgerow.training import SidLoss

        index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [2, 2]]))
        logits = [torch.zeros(1, 3, requires_grad=True) for _ in range(2)]
        loss = SidLoss(index)(logits, torch.tensor([[2, 0]]))
        loss.backward()
        assert torch.isclose(loss.exp(), torch.tensor(4.0))  # of 2 and 2 codes
        assert logits[1].grad.tolist() == [[-0.5, 0.0, 0.5]]
        ```
    """

    def __init__(
        self, index: Searched, *, normalize: Literal["allowed", "codes"] = "allowed", temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.index, version = trie_of(index)
        self.constraints = None if version is None else version.restrict()
        self.normalize, self.temperature = normalize, temperature
        self._placed: dict[torch.device, DeviceIndex] = {}

    def forward(self, logits: Sequence[Tensor], sids: Any) -> Tensor:
        """The loss of R SIDs.

        Args:
            logits: L tensors [R, C], as for `hedgerow.log_probs`.
            sids: integers [R, L], as for `hedgerow.log_probs`: SIDs of the index.

        Returns:
            A number, in float64 for logits in float64, otherwise float32.

        Raises:
            ArgumentError: on a CPU: a SID is not in the index, or its code has a logit of -inf. On other devices, where
                a check would wait, the loss is infinite then. Or as for `hedgerow.log_probs`.
        """
        options: Any = {"normalize": self.normalize, "temperature": self.temperature, "constraints": self.constraints}
        found = log_probs(self._on(logits), logits, sids, **options)
        if found.device.type == "cpu" and (found == -torch.inf).any():
            row, level = (found == -torch.inf).nonzero()[0].tolist()
            raise ArgumentError(
                f"row {row}, level {level}: the code has probability 0, because no item of the index has these codes, "
                "or its logit is -inf. Train on SIDs of this index: index.contains(sids)."
            )
        counted = self._counted(torch.as_tensor(sids, device=found.device).long())
        return -(found.sum(0) / counted.sum(0).clamp(min=1)).sum()

    def _counted(self, sids: Tensor) -> Tensor:
        """Bool [R, L]: whether each code, or end code, is decided there; after the end of a ragged SID, none is."""
        ends = sids.new_tensor([ENDED if end is None else end for end in self.index.end_codes])
        ended = (sids == ENDED) | (sids == ends)
        return ~functional.pad(ended[:, :-1], (1, 0))

    def _on(self, logits: Sequence[Tensor]) -> DeviceIndex:
        device = logits[0].device if len(logits) else torch.device("cpu")
        if device not in self._placed:
            self._placed[device] = self.index.to("torch", device)
        return self._placed[device]


def loss_of_levels(
    logits_of: Callable[[Tensor, int], Tensor], codes: Tensor, levels: Tensor, num_levels: int, allowed: SidLoss | None
) -> Tensor:
    """The mean loss of the codes of each level in a batch of sequences, summed over the levels.

    Args:
        logits_of: maps positions, bool [B, T] with R true, and their level to the logits [R, C].
        codes: int64 [B, T], the next code at each position.
        levels: int64 [B, T], its level; -1 if no code is next. The codes of an item are next to each other.
        num_levels: L.
        allowed: the loss among the codes that may follow. None: the cross-entropy among all codes of a level.
    """
    asked = [levels == level for level in range(num_levels)]
    logits = [logits_of(positions, level).float() for level, positions in enumerate(asked)]
    if allowed is None:
        losses = [mean_loss(own, codes[positions]) for own, positions in zip(logits, asked, strict=True)]
        return torch.stack(losses).sum()
    # Row by row, items come in the same order at each level. Ragged ones have no code at some.
    sids = codes.new_full((int(asked[0].sum()), num_levels), ENDED)
    for level, positions in enumerate(asked):
        ahead = functional.pad(positions, (0, level))[:, level:]
        present = ahead[asked[0]]
        sids[present, level] = codes[positions]
        if not bool(present.all()):
            logits[level] = (
                logits[level]
                .new_zeros(len(sids), logits[level].shape[1])
                .index_put((present.nonzero()[:, 0],), logits[level])
            )
    return allowed(logits, sids)


def mean_loss(logits: Tensor, codes: Tensor) -> Tensor:
    """The mean cross-entropy of codes [R] for logits [R, C]; 0 if R is 0, as with ragged SIDs."""
    return functional.cross_entropy(logits, codes, reduction="sum") / max(1, len(codes))
