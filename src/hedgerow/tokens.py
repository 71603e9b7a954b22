"""TokenMap: which token of a language model stands for which code of which level."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hedgerow.errors import ArgumentError
from hedgerow.index.level import Level
from hedgerow.index.trie import Trie

NO_TOKEN = -1
# The layouts that `detect` knows: OneRec's, MiniOneRec's and LC-Rec's, and others seen in the wild.
KNOWN_PATTERNS = (
    "<s_{level}_{code}>",
    "<{level}_{code}>",
    "<|sid_{level}_{code}|>",
    "<sid_{level}_{code}>",
    "<|{level}_{code}|>",
    "[{level}_{code}]",
)
KNOWN_DELIMITERS = (("<|sid_begin|>", "<|sid_end|>"), ("<|sid_start|>", "<|sid_end|>"), ("<sid>", "</sid>"))
SHOWN = 5
# More than any vocabulary has.
MOST_CODES = 2**24


@dataclass(frozen=True, eq=False, repr=False)
class TokenMap:
    """A language model's tokens for the codes of a Semantic ID, level by level, and what stands around a SID.

    Args:
        token_ids: for each of L levels, the token id of every code: integers [C_l]; -1 where a code has no token.
            The codes of one level have different tokens; two levels may use the same ones.
        begin: ids of the tokens between a prompt and the first code.
        end: ids of the tokens after the last code. Where SIDs are ragged it is one token, and also what ends a SID
            before the last level.

    Raises:
        ArgumentError: no level, an id below -1, or one token for two codes of a level.
    """

    token_ids: tuple[np.ndarray, ...]
    begin: tuple[int, ...] = ()
    end: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        tables = tuple(_checked_table(level, table) for level, table in enumerate(self.token_ids))
        if not tables:
            raise ArgumentError("a TokenMap needs at least one level: one array of token ids for each.")
        object.__setattr__(self, "token_ids", tables)
        for name in ("begin", "end"):
            object.__setattr__(self, name, _checked_delimiter(name, getattr(self, name)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenMap) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[Any, ...]:
        return tuple(table.tobytes() for table in self.token_ids), self.begin, self.end

    @classmethod
    def from_offsets(
        cls,
        offsets: Sequence[int],
        codebook_sizes: int | Sequence[int],
        *,
        begin: int | Sequence[int] = (),
        end: int | Sequence[int] = (),
    ) -> TokenMap:
        """Makes a map where code c of level l is the token offsets[l] + c.

        Raises:
            ArgumentError: the sizes are not one a level, an offset is below 0, or as for `TokenMap`.
        """
        sizes = _one_a_level(codebook_sizes, len(offsets))
        if min(offsets, default=0) < 0:
            raise ArgumentError(f"an offset is the token id of code 0, from 0 on; got {min(offsets)}.")
        tables = tuple(np.arange(size) + offset for offset, size in zip(offsets, sizes, strict=True))
        return cls(tables, _as_tuple(begin), _as_tuple(end))

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
        """Makes a map from the tokens of a tokenizer that are named after a pattern.

        Args:
            tokenizer: of transformers or tokenizers, or a mapping token -> id.
            pattern: what a token looks like, with {level} and {code} in it.
            levels: what {level} is for each level: "abc", or range(3); left out, the labels found, in order.
            codebook_sizes: codes per level, and then each must have a token; left out, up to the largest code found,
                and codes between may lack one: `missing` tells them.
            begin: the tokens before the first code, as text or ids.
            end: the tokens after the last code.

        Raises:
            ArgumentError: the pattern has no {level} or {code}, or tokens are missing: the message says which.
        """
        vocabulary = _vocabulary(tokenizer)
        labels = None if levels is None else [str(label) for label in levels]
        found = _found(vocabulary, pattern, labels)
        if labels is None:
            labels = _in_order(found)
        if not labels:
            raise ArgumentError(
                f"no token of the vocabulary looks like {pattern!r}; it has, for example, "
                f"{_examples(vocabulary)}. Give the pattern that it has, or TokenMap.from_offsets(...)."
            )
        sizes = None if codebook_sizes is None else _one_a_level(codebook_sizes, len(labels))
        tables = []
        for level, label in enumerate(labels):
            tokens = found.get(label, {})
            if not tokens:
                raise ArgumentError(
                    f"level {level}: no token looks like {_named(pattern, label, 0)!r}; the levels "
                    f"found are {', '.join(_in_order(_found(vocabulary, pattern))) or 'none'}."
                )
            tables.append(_table(tokens, sizes[level] if sizes else max(tokens) + 1))
            absent = np.flatnonzero(tables[-1] == NO_TOKEN)
            if sizes and absent.size:
                raise ArgumentError(
                    f"level {level} should have {sizes[level]:,} codes, but {absent.size:,} have no token, the first "
                    f"of them {_named(pattern, label, int(absent[0]))!r}. If the catalog does not use them, leave out "
                    "codebook_sizes."
                )
        return cls(tuple(tables), _delimiter(vocabulary, begin, "begin"), _delimiter(vocabulary, end, "end"))

    def ending_with(self, end: str | int, tokenizer: Any) -> TokenMap:
        """Returns the same map with another end token, given as text or as an id.

        Raises:
            ArgumentError: the tokenizer has no such token.
        """
        return replace(self, end=_delimiter(_vocabulary(tokenizer), end, "end"))

    @classmethod
    def detect(cls, tokenizer: Any) -> TokenMap:
        """Makes a map by looking for a known layout (OneRec, MiniOneRec, ...) and known delimiters.

        Raises:
            ArgumentError: none is there.
        """
        vocabulary = _vocabulary(tokenizer)
        counts = {pattern: sum(map(len, _found(vocabulary, pattern).values())) for pattern in KNOWN_PATTERNS}
        pattern = max(counts, key=lambda pattern: counts[pattern])
        if not counts[pattern]:
            raise ArgumentError(
                f"the tokenizer has no tokens like {', '.join(KNOWN_PATTERNS)}; it has, for example, "
                f"{_examples(vocabulary)}. Give its own pattern: TokenMap.from_tokenizer(tokenizer, pattern)."
            )
        both = (pair for pair in KNOWN_DELIMITERS if all(token in vocabulary for token in pair))
        begin, end = next(both, ((), ()))
        return cls.from_tokenizer(vocabulary, pattern, begin=begin, end=end)

    @property
    def num_levels(self) -> int:
        """L."""
        return len(self.token_ids)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Codes per level, those without a token counted."""
        return tuple(map(len, self.token_ids))

    @property
    def missing(self) -> tuple[np.ndarray, ...]:
        """The codes of each level that have no token."""
        return tuple(np.flatnonzero(table == NO_TOKEN) for table in self.token_ids)

    def encode(self, sids: Any) -> np.ndarray:
        """Returns the token ids [..., L] of SIDs [..., L]: of R of them, or of users' histories [U, n, L].

        Raises:
            ArgumentError: the width is not L, or a code has no token.
        """
        return self._translated(np.asarray(sids), [_checked_codes(table) for table in self.token_ids])

    def decode(self, token_ids: Any) -> np.ndarray:
        """Returns the codes [..., L] of token ids [..., L], level by level; -1 where a token is no code of its level.

        Raises:
            ArgumentError: the width is not L.
        """
        return self._translated(np.asarray(token_ids), [_inverse(table) for table in self.token_ids])

    def check(self, index: Trie) -> None:
        """Makes sure that every code that `index` uses has a token. Errors as for `of_index`."""
        self.of_index(index)

    def of_index(self, index: Trie) -> TokenMap:
        """Returns the map from the codes of `index`, its end codes included, to tokens: this one, if it has none.

        Raises:
            ArgumentError: the levels differ, or codes of the catalog have no token; it says which. Or SIDs are ragged,
                and `end` is not one token, or one that stands for a code, too.
        """
        if index.num_levels != self.num_levels:
            raise ArgumentError(
                f"the index has SIDs of {index.num_levels} codes, but the token map has {self.num_levels} levels."
            )
        whole = self._with_ends(index) if index.ragged else self
        for at, (level, table) in enumerate(zip(index.levels, whole.token_ids, strict=True)):
            used = np.unique(level.codes)
            absent = [code for code in used.tolist() if code >= len(table) or table[code] == NO_TOKEN]
            if absent:
                raise ArgumentError(
                    f"{len(absent):,} codes that the catalog uses at level {at} have no token: "
                    f"{', '.join(map(str, absent[:SHOWN]))}{' ...' if len(absent) > SHOWN else ''}. The tokenizer and "
                    "the catalog do not belong together, or tokens are still to be added to the tokenizer."
                )
        return whole

    def _with_ends(self, index: Trie) -> TokenMap:
        if len(self.end) != 1:
            raise ArgumentError(
                "the SIDs of this index are ragged, so the model must write one token to end a SID; the token map has "
                f"end={self.end}. Give it: TokenMap(..., end=tokenizer.eos_token_id)."
            )
        _check_without_ends(index, self.token_ids)
        tables = zip(index.levels, self.token_ids, strict=True)
        return TokenMap(
            tuple(_with_end(at, level, table, self.end[0]) for at, (level, table) in enumerate(tables)),
            self.begin,
            self.end,
        )

    def _translated(self, given: np.ndarray, translate: list[Any]) -> np.ndarray:
        if given.ndim < 2 or given.shape[-1] != self.num_levels or given.dtype.kind not in "iu":
            raise ArgumentError(
                f"expected integers [R, {self.num_levels}], a column a level; got {given.dtype} {list(given.shape)}."
            )
        columns = (given[..., level] for level in range(self.num_levels))
        return np.stack([look_up(column) for look_up, column in zip(translate, columns, strict=True)], axis=-1)

    def __repr__(self) -> str:
        missing = sum(map(len, self.missing))
        parts = [f"levels={self.num_levels}", f"codebook_sizes={self.codebook_sizes}"]
        parts += [f"begin={self.begin}"] * bool(self.begin) + [f"end={self.end}"] * bool(self.end)
        return f"TokenMap({', '.join(parts + [f'missing={missing:,}'] * bool(missing))})"


def _checked_table(level: int, given: Any) -> np.ndarray:
    table = np.array(given)
    if table.ndim != 1 or not table.size or table.dtype.kind not in "iu":
        raise ArgumentError(
            f"level {level}: expected token ids as integers [C], one a code; got {table.dtype} {list(table.shape)}."
        )
    table = table.astype(np.int64)
    if table.min() < NO_TOKEN:
        raise ArgumentError(f"level {level}: {table.min()} is no token id; -1 says that a code has no token.")
    present = np.sort(table[table != NO_TOKEN])
    repeated = present[1:][present[1:] == present[:-1]]
    if repeated.size:
        codes = np.flatnonzero(table == repeated[0])
        raise ArgumentError(f"level {level}: token {repeated[0]} stands for two codes, {codes[0]} and {codes[1]}.")
    table.setflags(write=False)
    return table


def _check_without_ends(index: Trie, tables: Sequence[np.ndarray]) -> None:
    """Raises ArgumentError where a map has tokens for the end codes of an index too: its `end` stands for them."""
    ends = [(table, level.end) for level, table in zip(index.levels, tables, strict=True)]
    sizes = [len(table) for table in tables]
    if sizes == list(index.codebook_sizes) and all(end is None or table[end] != NO_TOKEN for table, end in ends):
        codes = [len(table) - (end is not None) for table, end in ends]
        raise ArgumentError(
            f"the token map has {sizes} codes, as many as index.codebook_sizes, which count the end as a code; "
            f"the map's end= is its token. Give the codes alone, codebook_sizes={codes}; or, if the model has so many, "
            "build the catalog with these sizes."
        )


def _with_end(at: int, level: Level, table: np.ndarray, token: int) -> np.ndarray:
    """Returns a level's tokens with that of its end code put in at its place; codes that follow it move up by one.

    Raises:
        ArgumentError: the token stands for a code that the catalog uses.
    """
    clash = np.flatnonzero(table == token)
    if clash.size and clash[0] != level.end and (level.codes == clash[0]).any():
        raise ArgumentError(
            f"level {at}: token {token} ends a SID, and stands for code {clash[0]}, which the catalog uses. Give "
            "another end token."
        )
    # Where the codes are the model's own vocabulary, the end token is one of them, which no SID has.
    table = np.where(table == token, NO_TOKEN, table)
    if level.end is None:
        return table
    table = np.pad(table, (0, max(0, level.end - len(table))), constant_values=NO_TOKEN)
    return np.insert(table, level.end, token)


def _checked_delimiter(name: str, ids: Any) -> tuple[int, ...]:
    ids = _as_tuple(ids)
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, int | np.integer) or token < 0:
            raise ArgumentError(f"{name} must be token ids, integers from 0 on; got {token!r}.")
    return tuple(map(int, ids))


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, str | int | np.integer) else tuple(value)


def _one_a_level(sizes: int | Sequence[int], levels: int) -> tuple[int, ...]:
    each = (int(sizes),) * levels if isinstance(sizes, int | np.integer) else tuple(map(int, sizes))
    if len(each) != levels or min(each, default=1) < 1 or max(each, default=1) > MOST_CODES:
        raise ArgumentError(
            f"codebook_sizes must be positive and at most {MOST_CODES:,}, one or {levels} of them; got {sizes!r}."
        )
    return each


def _vocabulary(tokenizer: Any) -> Mapping[str, int]:
    if isinstance(tokenizer, Mapping):
        return tokenizer
    if not hasattr(tokenizer, "get_vocab"):
        raise ArgumentError(
            "expected a tokenizer of transformers or tokenizers, or a mapping token -> id; "
            f"got {type(tokenizer).__name__}."
        )
    return tokenizer.get_vocab()


def _found(
    vocabulary: Mapping[str, int], pattern: str, labels: Sequence[str] | None = None
) -> dict[str, dict[int, int]]:
    """Returns label -> code -> token id, of all tokens that look like the pattern, with any label or one of these."""
    if pattern.count("{level}") != 1 or pattern.count("{code}") != 1:
        raise ArgumentError(
            f"the pattern must hold {{level}} and {{code}}, each once, as '<s_{{level}}_{{code}}>'; got {pattern!r}."
        )
    # A label is one letter or a number: words with a number, such as <extra_id_0>, are something else.
    label = r"[A-Za-z]|[0-9]+" if labels is None else "|".join(map(re.escape, labels))
    shape = re.escape(pattern).replace(r"\{level\}", f"({label})").replace(r"\{code\}", r"([0-9]+)")
    matches = ((re.fullmatch(shape, token), token_id) for token, token_id in vocabulary.items())
    found: dict[str, dict[int, int]] = {}
    code_first = pattern.index("{code}") < pattern.index("{level}")
    for match, token_id in matches:
        if match:
            label, code = match.groups()[:: -1 if code_first else 1]
            codes = found.setdefault(label, {})
            if int(code) in codes or int(code) >= MOST_CODES:
                problem = (
                    "two tokens stand for it" if int(code) in codes else f"a codebook has up to {MOST_CODES:,} codes"
                )
                raise ArgumentError(f"code {int(code)} of level {label!r}, {match[0]!r}: {problem}.")
            codes[int(code)] = token_id
    return found


def _in_order(found: Mapping[str, Any]) -> list[str]:
    return sorted(found, key=lambda label: (len(label), label))


def _table(tokens: Mapping[int, int], size: int) -> np.ndarray:
    table = np.full(size, NO_TOKEN, np.int64)
    for code, token_id in tokens.items():
        if code < size:
            table[code] = token_id
    return table


def _named(pattern: str, label: str, code: int) -> str:
    return pattern.replace("{level}", label).replace("{code}", str(code))


def _examples(vocabulary: Mapping[str, int]) -> str:
    """Returns the last few tokens: added ones come last."""
    last = sorted(vocabulary, key=lambda token: vocabulary[token])[-SHOWN:]
    return ", ".join(map(repr, last)) or "no tokens at all"


def _delimiter(vocabulary: Mapping[str, int], given: Any, name: str) -> tuple[int, ...]:
    ids = []
    for token in _as_tuple(given):
        if isinstance(token, str) and token not in vocabulary:
            raise ArgumentError(f"{name}: {token!r} is not a token of the vocabulary; name tokens, or give their ids.")
        ids.append(vocabulary[token] if isinstance(token, str) else token)
    return tuple(ids)


def _checked_codes(table: np.ndarray) -> Any:
    def look_up(codes: np.ndarray) -> np.ndarray:
        known = (codes >= 0) & (codes < len(table))
        ids = np.where(known, table[np.where(known, codes, 0)], NO_TOKEN)
        if (ids == NO_TOKEN).any():
            raise ArgumentError(
                f"code {codes[ids == NO_TOKEN][0]} has no token; there are codes 0 to {len(table) - 1}."
            )
        return ids

    return look_up


def _inverse(table: np.ndarray) -> Any:
    order = np.argsort(table)
    ordered = table[order]

    def look_up(ids: np.ndarray) -> np.ndarray:
        at = np.minimum(np.searchsorted(ordered, ids), len(ordered) - 1)
        return np.where((ordered[at] == ids) & (ids >= 0), order[at], -1)

    return look_up
