"""Tables: the index and the tokens of a CatalogLogitsProcessor on a device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hedgerow._compiled import native
from hedgerow.decode.device import DeviceIndex, to_device
from hedgerow.decode.kernels import walk_native
from hedgerow.decode.kernels.walk import allowed_children, child_by_code
from hedgerow.decode.prepared import PreparedConstraints
from hedgerow.errors import ArgumentError
from hedgerow.hf.model import INF
from hedgerow.index.trie import Trie
from hedgerow.token_tables import NO_TOKEN
from hedgerow.tokens import TokenMap


@dataclass(frozen=True)
class Tables:
    """The index and the tokens on a device.

    Attributes:
        index: the trie.
        codes: per level, the code [V + 1] int32 of each token, -1 if it has none. The last entry is for all other ids:
            negative ones, and those beyond V, which models that read images have.
        token_ids: per level, the token [C] of each code, 0 if it has none.
        present: per level, the codes that have a token.
        words: bool [V], the tokens that stand for no code.
        constraints: the constraints of every row, or None.
    """

    index: DeviceIndex
    codes: tuple[Tensor, ...]
    token_ids: tuple[Tensor, ...]
    present: tuple[Tensor, ...]
    words: Tensor
    constraints: PreparedConstraints | None = None

    @classmethod
    def of(cls, index: Trie, tokens: TokenMap, device: torch.device, vocabulary_size: int) -> Tables:
        """Place the tables of an index and its token map on a device.

        Raises:
            ArgumentError: the token map has a token beyond the vocabulary.
        """
        highest = max(max(map(int, ids), default=0) for ids in (*tokens.token_ids, tokens.begin, tokens.end))
        if highest >= vocabulary_size:
            raise ArgumentError(
                f"the token map names token {highest}, but the scores have {vocabulary_size:,} tokens; it belongs to "
                "another model, or the embeddings of the model were not resized."
            )
        codes, words = [], torch.ones(vocabulary_size, dtype=torch.bool)
        for table in _without_ends(index, tokens):
            present = (table != NO_TOKEN).nonzero()[:, 0]
            inverse = torch.full((vocabulary_size + 1,), -1, dtype=torch.int32)
            inverse[table[present]] = present.int()
            words[table[present]] = False
            codes.append(inverse.to(device))
        # The index may have more codes than the map; no SID uses them.
        padded = [
            torch.nn.functional.pad(torch.tensor(table[:size]), (0, max(0, size - len(table))), value=NO_TOKEN)
            for table, size in zip(tokens.token_ids, index.codebook_sizes, strict=True)
        ]
        return cls(
            to_device(index, "torch", device),
            tuple(codes),
            tuple(table.clamp(min=0).to(device) for table in padded),
            tuple((table != NO_TOKEN).nonzero()[:, 0].to(device) for table in padded),
            words.to(device),
        )

    @property
    def compiled(self) -> bool:
        """Whether compiled functions walk the index: on a CPU, if they were built."""
        return native is not None and self.words.device.type == "cpu"

    def child(self, level: int, states: Tensor, tokens: Tensor) -> Tensor:
        """The child [R] of each state by each token; dead if there is none."""
        if self.compiled:
            arrays = (self.codes[level].numpy(), tokens.numpy(), states.numpy())
            return torch.from_numpy(walk_native.child_by_token(self.index.levels[level], *arrays))
        size = len(self.words)
        codes = self.codes[level][torch.where((tokens >= 0) & (tokens < size), tokens, size)]
        return child_by_code(self.index._ops, self.index.levels[level], states, codes)

    def allow(self, out: Tensor, scores: Tensor, level: int, states: Tensor) -> Tensor:
        """Write to `out` the scores of the tokens that may follow the `states` [R] before a level.

        Returns:
            The best score [R] of these tokens: -inf if a row may write none of them, NaN if one of them is NaN. Rows of
            dead states have -inf.
        """
        trie_level = self.index.levels[level]
        masks = None if self.constraints is None else self.constraints.levels[level]
        readable = scores.dtype in (torch.float32, torch.float64) and out.is_contiguous()
        if self.compiled and masks is None and readable:
            arrays = (self.token_ids[level].numpy(), states.numpy(), scores.numpy(), out.numpy())
            return torch.from_numpy(walk_native.write_allowed(trie_level, *arrays))
        codes, valid = (array[:, 0] for array in allowed_children(self.index._ops, trie_level, states[:, None], masks))
        if trie_level.allowed is not None:
            codes, valid = codes[:, self.present[level]], valid[:, self.present[level]]
        # A row with fewer children than others repeats its first child, so writing it twice does no harm.
        tokens = self.token_ids[level][codes.long()]
        allowed = torch.where(valid, scores.gather(1, tokens), -INF)
        out.scatter_(1, tokens, torch.where(valid, allowed, out.gather(1, tokens)))
        return allowed.amax(1) if allowed.shape[1] else torch.full_like(scores[:, 0], -INF)


def _without_ends(index: Trie, tokens: TokenMap) -> list[Tensor]:
    """The tokens [C] of each level's codes without the end token, which counts as text, so that text follows it."""
    tables = [torch.tensor(table) for table in tokens.token_ids]
    for table, end in zip(tables, index.end_codes, strict=True):
        if end is not None:
            table[end] = NO_TOKEN
    return tables
