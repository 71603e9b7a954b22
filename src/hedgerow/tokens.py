"""TokenMap: the tokens of a language model for the codes of Semantic IDs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow import token_files
from hedgerow._arguments import check_unmasked, is_whole
from hedgerow._read_only import ReadOnlyArrays
from hedgerow.catalog.codes import KNOWN_PATTERNS
from hedgerow.errors import ArgumentError
from hedgerow.index.trie import Trie
from hedgerow.token_files import HistoryForm
from hedgerow.token_tables import (
    NO_TOKEN,
    as_tuple,
    check_no_ends,
    check_used_codes,
    checked_delimiter,
    checked_table,
    decoder,
    delimiter_ids,
    detect_layout,
    encoder,
    logits_of_codes,
    size_per_level,
    tables_of_pattern,
    translated,
    vocabulary_of,
    with_end,
)


@dataclass(frozen=True, eq=False, repr=False)
class TokenMap(ReadOnlyArrays):
    """Maps each (level, code) pair of Semantic IDs to a token id of a language model.

    Token maps are equal if their tables and delimiters are equal.

    Args:
        token_ids: integers [C] per level, the token id of every code; -1 if a code has no token. The codes of one
            level have different tokens; two levels may use the same tokens.
        begin: the ids of the tokens between a prompt and the first code.
        end: the ids of the tokens after the last code. If SIDs are ragged, it is one token, which also ends a SID
            before the last level.
        history: how a history is written in a prompt: see `hedgerow.hf.Retriever.history_prompt`.

    Raises:
        ArgumentError: there are no levels, an id is below -1, or two codes of a level have the same token.

    Examples:
        ```python
        import hedgerow as hr

        tokens = hr.TokenMap([[10, 11, 12], [20, 21, 22]], end=2)
        assert tokens.encode([[0, 2]]).tolist() == [[10, 22]]
        assert tokens.decode([[10, 22]]).tolist() == [[0, 2]]
        ```
    """

    token_ids: tuple[np.ndarray, ...]
    begin: tuple[int, ...] = ()
    end: tuple[int, ...] = ()
    history: HistoryForm | None = None

    def __post_init__(self) -> None:
        tables = tuple(checked_table(level, table) for level, table in enumerate(self.token_ids))
        if not tables:
            raise ArgumentError("a TokenMap needs at least one level; got no tables of token ids.")
        object.__setattr__(self, "token_ids", tables)
        for name in ("begin", "end"):
            object.__setattr__(self, name, checked_delimiter(name, getattr(self, name)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenMap) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[Any, ...]:
        return tuple(table.tobytes() for table in self.token_ids), self.begin, self.end, self.history

    @classmethod
    def from_offsets(
        cls,
        offsets: Sequence[int],
        codebook_sizes: int | Sequence[int],
        *,
        begin: int | Sequence[int] = (),
        end: int | Sequence[int] = (),
    ) -> TokenMap:
        """Create a map in which code c of level l has the token id offsets[l] + c.

        Args:
            offsets: the token id of code 0 per level.
            codebook_sizes: the codebook size of every level, or one size per level.
            begin: the ids of the tokens before the first code.
            end: the ids of the tokens after the last code.

        Raises:
            ArgumentError: the number of sizes is not that of offsets, an offset is below 0, or as for `TokenMap`.

        Examples:
            ```python
            import hedgerow as hr

            tokens = hr.TokenMap.from_offsets([1000, 1256], codebook_sizes=256)
            assert tokens.encode([[3, 0]]).tolist() == [[1003, 1256]]
            ```
        """
        is_list = isinstance(offsets, Iterable) and not isinstance(offsets, str)
        starts: list[Any] = list(offsets) if is_list else [offsets]
        wrong = [start for start in starts if not (is_list and is_whole(start, least=0))]
        if wrong:
            raise ArgumentError(
                f"offsets must be token ids, integers from 0; got {wrong[0]!r}. Pass a list with one per level."
            )
        sizes = size_per_level(codebook_sizes, len(starts))
        tables = tuple(np.arange(size) + int(start) for start, size in zip(starts, sizes, strict=True))
        return cls(tables, as_tuple(begin), as_tuple(end))

    @classmethod
    def from_tokenizer(
        cls,
        tokenizer: Any,
        pattern: str = KNOWN_PATTERNS[0],
        *,
        levels: Iterable[str | int] | None = None,
        codebook_sizes: int | Sequence[int] | None = None,
        begin: str | int | Sequence[str | int] = (),
        end: str | int | Sequence[str | int] = (),
    ) -> TokenMap:
        """Create a map from the tokens of a tokenizer whose names match a pattern.

        Args:
            tokenizer: a tokenizer of transformers or tokenizers, or a mapping token -> id.
            pattern: the name of a token, with the placeholders {level} and {code}.
            levels: the value of {level} per level: "abc", or range(3). Default: the values found, in order.
            codebook_sizes: the codebook size of every level, or one size per level; each code must then have a token.
                Default: the largest code found plus one, and codes may lack a token: see `missing`.
            begin: the tokens before the first code, as text or ids.
            end: the tokens after the last code, as text or ids.

        Raises:
            ArgumentError: the pattern lacks {level} or {code}, or a token is missing; the message names it.

        Examples:
            ```python
            import hedgerow as hr

            vocabulary = {"<a_0>": 5, "<a_1>": 6, "<b_0>": 7, "<b_1>": 8, "</s>": 2}
            tokens = hr.TokenMap.from_tokenizer(vocabulary, "<{level}_{code}>", end="</s>")
            assert tokens.encode([[1, 0]]).tolist() == [[6, 7]]
            ```
        """
        vocabulary = vocabulary_of(tokenizer)
        tables = tables_of_pattern(vocabulary, pattern, levels, codebook_sizes)
        return cls(tables, delimiter_ids(vocabulary, begin, "begin"), delimiter_ids(vocabulary, end, "end"))

    def ending_with(self, end: str | int, tokenizer: Any) -> TokenMap:
        """Return a copy with another end token.

        Args:
            end: the token, as text or an id.
            tokenizer: as for `from_tokenizer`.

        Raises:
            ArgumentError: the tokenizer has no such token.

        Examples:
            ```python
            import hedgerow as hr

            tokens = hr.TokenMap.from_offsets([10, 20], codebook_sizes=4)
            assert tokens.ending_with("</s>", {"</s>": 2}).end == (2,)
            ```
        """
        return replace(self, end=delimiter_ids(vocabulary_of(tokenizer), end, "end"))

    @classmethod
    def detect(cls, tokenizer: Any) -> TokenMap:
        """Create a map by searching the vocabulary for a known layout (OneRec, MiniOneRec, ...) and known delimiters.

        Args:
            tokenizer: as for `from_tokenizer`.

        Raises:
            ArgumentError: the vocabulary has no known layout.

        Examples:
            ```python
            import hedgerow as hr

            tokens = hr.TokenMap.detect({"<s_a_0>": 5, "<s_a_1>": 6, "<s_b_0>": 7})
            assert tokens.codebook_sizes == (2, 1)
            ```
        """
        vocabulary = vocabulary_of(tokenizer)
        pattern, begin, end = detect_layout(vocabulary)
        return cls.from_tokenizer(vocabulary, pattern, begin=begin, end=end)

    @classmethod
    def load(cls, path: str | Path) -> TokenMap:
        """Load the token map that `save` wrote.

        Args:
            path: the file, or the folder of a model that has it as tokens.json.

        Raises:
            ArgumentError: there is no such file, or it is damaged or has a newer format.

        Examples:
            ```python
            import hedgerow as hr

            tokens = hr.TokenMap.from_offsets([10, 20], codebook_sizes=4, end=2)
            tokens.save("tokens.json")
            assert hr.TokenMap.load("tokens.json") == tokens
            ```
        """
        file = token_files.file_of(path)
        facts = token_files.read(file)
        tables = tuple(token_files.unpacked(file, level) for level in facts["levels"])
        begin, end = (as_tuple(facts.get(name, ())) for name in ("begin", "end"))
        return cls(tables, begin, end, token_files.form_of(file, facts))

    def save(self, path: str | Path) -> None:
        """Write the token map to a JSON file, completely or not at all. `Retriever`s of a model folder use it.

        Args:
            path: the file, or a folder, in which it is tokens.json.

        Raises:
            ArgumentError: the file cannot be written.

        Examples: see `load`.
        """
        levels = [token_files.packed(table) for table in self.token_ids]
        facts = {"levels": levels, "begin": self.begin, "end": self.end}
        token_files.write(token_files.file_of(path), facts | token_files.form_facts(self.history))

    @property
    def num_levels(self) -> int:
        """L, the number of levels."""
        return len(self.token_ids)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The number of codes per level, including codes without a token."""
        return tuple(map(len, self.token_ids))

    @property
    def missing(self) -> tuple[np.ndarray, ...]:
        """The codes without a token per level, int64."""
        return tuple(np.flatnonzero(table == NO_TOKEN) for table in self.token_ids)

    def encode(self, sids: Any) -> np.ndarray:
        """Convert SIDs to token ids.

        Args:
            sids: integers [..., L]: for example [R, L], or histories [users, items, L].

        Returns:
            int64 [..., L].

        Raises:
            ArgumentError: the last axis is not L long, or a code has no token.

        Examples:
            ```python
            import hedgerow as hr

            tokens = hr.TokenMap.from_offsets([10, 20], codebook_sizes=4)
            assert tokens.encode([[0, 3], [1, 1]]).tolist() == [[10, 23], [11, 21]]
            ```
        """
        check_unmasked(sids, "sids", "Remove the rows without a SID.")
        return translated(np.asarray(sids), [encoder(table) for table in self.token_ids])

    def decode(self, token_ids: Any) -> np.ndarray:
        """Convert token ids to codes, per level; -1 if a token is not a code of its level.

        Args:
            token_ids: integers [..., L].

        Returns:
            int64 [..., L].

        Raises:
            ArgumentError: the last axis is not L long.

        Examples:
            ```python
            import hedgerow as hr

            tokens = hr.TokenMap.from_offsets([10, 20], codebook_sizes=4)
            assert tokens.decode([[10, 23], [11, 99]]).tolist() == [[0, 3], [1, -1]]
            ```
        """
        check_unmasked(token_ids, "token_ids", "Remove these rows, or fill them: token_ids.filled(-1).")
        return translated(np.asarray(token_ids), [decoder(table) for table in self.token_ids])

    def code_logits(self, logits: Any, index: Trie) -> list[Any]:
        """Take the logits of codes from logits over a vocabulary, as `hedgerow.log_probs` takes them.

        Args:
            logits: [..., L, V], an array of NumPy, PyTorch or JAX: the model's logits at the L positions before the
                tokens of a SID.
            index: the index of the catalog.

        Returns:
            L arrays [..., C] over the codes of each level of the index; -inf for codes without a token.

        Raises:
            ArgumentError: the last axes are not L and V, V is too small for the tokens, or as for `of_index`.

        Examples:
            ```python
            import numpy as np
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0, 1], [2, 0]]))
            tokens = hr.TokenMap.from_offsets([10, 20], codebook_sizes=4)
            logits = np.random.default_rng(0).normal(size=(5, 2, 32))  # 5 sequences
            first, second = tokens.code_logits(logits, index)
            assert first.shape == (5, 3) and (second == logits[:, 1, 20:22]).all()
            ```
        """
        return logits_of_codes(logits, self.of_index(index).token_ids, index.codebook_sizes)

    def check(self, index: Trie) -> None:
        """Check that every code that an index uses has a token.

        Args:
            index: the index.

        Raises:
            ArgumentError: as for `of_index`.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0, 1], [2, 0]]))
            hr.TokenMap.from_offsets([10, 20], codebook_sizes=4).check(index)
            ```
        """
        self.of_index(index)

    def of_index(self, index: Trie) -> TokenMap:
        """Return the map for the codes of an index, including its end codes; this map if there are no end codes.

        Args:
            index: the index.

        Raises:
            ArgumentError: the numbers of levels differ, or codes of the catalog have no token; the message names them.
                Or SIDs are ragged, and `end` is not one token, or is the token of a code that the catalog uses.

        Examples:
            ```python
            import hedgerow as hr

            index = hr.build_index(hr.Catalog([[0], [0, 1]], codebook_sizes=2, ragged=True))
            tokens = hr.TokenMap.from_offsets([10, 20], codebook_sizes=2, end=5)
            assert [table.tolist() for table in tokens.of_index(index).token_ids] == [[10, 11], [20, 21, 5]]
            ```
        """
        if index.num_levels != self.num_levels:
            raise ArgumentError(
                f"the index has SIDs of {index.num_levels} codes, but the token map has {self.num_levels} levels. "
                "Pass the token map of the model that generates these SIDs."
            )
        tokens = self._with_ends(index) if index.ragged else self
        check_used_codes(index, tokens.token_ids)
        return tokens

    def _with_ends(self, index: Trie) -> TokenMap:
        """This map with the end token as the token of every end code of a ragged index."""
        if len(self.end) != 1:
            raise ArgumentError(
                "the SIDs of this index are ragged, so the token map needs exactly one end token; it has "
                f"end={self.end}. Pass one: TokenMap(..., end=tokenizer.eos_token_id)."
            )
        check_no_ends(index, self.token_ids)
        levels = enumerate(zip(index.levels, self.token_ids, strict=True))
        tables = tuple(with_end(level_number, level, table, self.end[0]) for level_number, (level, table) in levels)
        return replace(self, token_ids=tables)

    def __repr__(self) -> str:
        missing = sum(map(len, self.missing))
        parts = [f"levels={self.num_levels}", f"codebook_sizes={self.codebook_sizes}"]
        parts += [f"begin={self.begin}"] * bool(self.begin) + [f"end={self.end}"] * bool(self.end)
        return f"TokenMap({', '.join(parts + [f'missing={missing:,}'] * bool(missing))})"
