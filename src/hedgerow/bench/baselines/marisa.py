"""marisa-trie: a succinct trie in C++, queried from Python as in GENRE."""

from __future__ import annotations

from collections.abc import Iterable

from hedgerow.bench.arrays import Arrays
from hedgerow.bench.baselines.base import Problem, optional
from hedgerow.bench.baselines.cpu_trie import HostMask

CODE_BYTES = 4


class MarisaTrie(HostMask):
    """SIDs as byte strings: the codes after a prefix are those of the keys that start with it. Exact.

    The codes of level 0 are stored separately, because listing all keys for them would dominate the time.
    """

    name = "marisa-trie"
    max_items = 2_000_000

    def __init__(self, problem: Problem, arrays: Arrays) -> None:
        super().__init__(problem, arrays)
        marisa = optional("marisa_trie", "marisa-trie")
        self.codes_of_root = {int(code) for code in problem.sids[:, 0]}
        self.trie = marisa.BinaryTrie(row.tobytes() for row in problem.sids.astype(">u4"))

    @property
    def nbytes(self) -> int:
        """Bytes of the serialized trie."""
        return len(self.trie.tobytes())

    def allowed_after(self, prefix: list[int]) -> Iterable[int]:
        """List the keys that start with the prefix."""
        if not prefix:
            return self.codes_of_root
        prefix_bytes = b"".join(code.to_bytes(CODE_BYTES, "big") for code in prefix)
        start, stop = len(prefix_bytes), len(prefix_bytes) + CODE_BYTES
        return {int.from_bytes(key[start:stop], "big") for key in self.trie.keys(prefix_bytes)}
