"""marisa-trie: a succinct trie in C++, asked from Python as GENRE does."""

from __future__ import annotations

from collections.abc import Iterable

from hedgerow.bench.arrays import Arrays
from hedgerow.bench.baselines.base import Problem, optional
from hedgerow.bench.baselines.cpu_trie import HostMask

CODE_BYTES = 4


class MarisaTrie(HostMask):
    """SIDs as byte strings; the codes after a prefix are read off the keys that start with it. Exact.

    The root's codes are kept apart, because listing every key for them would dwarf the rest.
    """

    name = "marisa-trie"
    most_items = 2_000_000

    def __init__(self, problem: Problem, arrays: Arrays) -> None:
        super().__init__(problem, arrays)
        marisa = optional("marisa_trie", "marisa-trie")
        self.first = {int(code) for code in problem.sids[:, 0]}
        self.trie = marisa.BinaryTrie(row.tobytes() for row in problem.sids.astype(">u4"))

    @property
    def nbytes(self) -> int:
        """Bytes of the trie as saved."""
        return len(self.trie.tobytes())

    def allowed_after(self, prefix: list[int]) -> Iterable[int]:
        """Lists the keys under the prefix."""
        if not prefix:
            return self.first
        key = b"".join(code.to_bytes(CODE_BYTES, "big") for code in prefix)
        end = len(key) + CODE_BYTES
        return {int.from_bytes(found[len(key) : end], "big") for found in self.trie.keys(key)}
