"""Tables of token ids, one per level: read from a tokenizer's vocabulary, checked, and extended by end tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hedgerow._arguments import check_unmasked, is_whole
from hedgerow.catalog.codes import KNOWN_DELIMITERS, KNOWN_PATTERNS, label_key
from hedgerow.errors import ArgumentError
from hedgerow.index.compact import AnyLevel
from hedgerow.index.trie import Trie

NO_TOKEN = -1
# Maps a column of codes to token ids, or of token ids to codes.
Translator = Callable[[np.ndarray], np.ndarray]
# More codes than any vocabulary has tokens.
MAX_CODES = 2**24
# The number of tokens that an error lists.
LISTED_TOKENS = 5

# The number of codes that an error lists.
LISTED_CODES = 5
# The codes of a larger codebook are sorted: one counter for each would take too much memory.
MAX_COUNTED_CODES = 2**22

# Label of a level -> code -> token id.
Tokens = dict[str, dict[int, int]]


def vocabulary_of(tokenizer: Any) -> Mapping[str, int]:
    """Token -> id, of a tokenizer of transformers or tokenizers, or of such a mapping.

    Raises:
        ArgumentError: `tokenizer` is neither.
    """
    if isinstance(tokenizer, Mapping):
        return tokenizer
    if not hasattr(tokenizer, "get_vocab"):
        raise ArgumentError(
            "expected a tokenizer of transformers or tokenizers, or a mapping token -> id; "
            f"got {type(tokenizer).__name__}."
        )
    return tokenizer.get_vocab()


def tables_of_pattern(
    vocabulary: Mapping[str, int],
    pattern: str,
    levels: Iterable[str | int] | None,
    codebook_sizes: int | Sequence[int] | None,
) -> tuple[np.ndarray, ...]:
    """The token ids of every code per level: see `TokenMap.from_tokenizer`, which documents arguments and errors."""
    labels = None if levels is None else [str(label) for label in levels]
    tokens = tokens_of_pattern(vocabulary, pattern, labels)
    labels = _sorted_labels(tokens) if labels is None else labels
    if not labels:
        raise ArgumentError(
            f"no token of the vocabulary looks like {pattern!r}; the vocabulary has, for example, "
            f"{_last_tokens(vocabulary)}. Pass the pattern of its tokens, or use TokenMap.from_offsets(...)."
        )
    sizes = None if codebook_sizes is None else size_per_level(codebook_sizes, len(labels))
    tables = []
    for level, label in enumerate(labels):
        if label not in tokens:
            labels_found = ", ".join(_sorted_labels(tokens_of_pattern(vocabulary, pattern))) or "none"
            raise ArgumentError(
                f"level {level}: no token looks like {_token_name(pattern, label, 0)!r}; the levels found are "
                f"{labels_found}."
            )
        table = _table(tokens[label], sizes[level] if sizes else max(tokens[label]) + 1)
        missing = np.flatnonzero(table == NO_TOKEN)
        if sizes and missing.size:
            raise ArgumentError(
                f"level {level} must have {sizes[level]:,} codes, but {missing.size:,} have no token, for example "
                f"{_token_name(pattern, label, int(missing[0]))!r}. If the catalog does not use these codes, omit "
                "codebook_sizes."
            )
        tables.append(table)
    return tuple(tables)


def tokens_of_pattern(vocabulary: Mapping[str, int], pattern: str, labels: Sequence[str] | None = None) -> Tokens:
    """The tokens that match a pattern.

    Args:
        vocabulary: token -> id.
        pattern: the name of a token, with the placeholders {level} and {code}.
        labels: the values of {level} to accept. Default: any letter or number.

    Raises:
        ArgumentError: the pattern does not have each placeholder once, two tokens stand for one code, or a code is
            larger than any codebook.
    """
    if pattern.count("{level}") != 1 or pattern.count("{code}") != 1:
        raise ArgumentError(
            "the pattern must contain {level} and {code}, each once, as '<s_{level}_{code}>' does; "
            f"got {pattern!r}."
        )
    # One letter or a number: other words with a number, for example <extra_id_0>, are not codes.
    any_label = r"[A-Za-z]|[0-9]+" if labels is None else "|".join(map(re.escape, labels))
    expression = re.escape(pattern).replace(r"\{level\}", f"({any_label})").replace(r"\{code\}", r"([0-9]+)")
    code_first = pattern.index("{code}") < pattern.index("{level}")
    tokens: Tokens = {}
    for token, token_id in vocabulary.items():
        match = re.fullmatch(expression, token)
        if match:
            label, digits = match.groups()[:: -1 if code_first else 1]
            codes, code = tokens.setdefault(label, {}), int(digits)
            if code in codes:
                raise ArgumentError(f"token {token!r}: another token stands for code {code} of level {label!r}, too.")
            if code >= MAX_CODES:
                raise ArgumentError(f"token {token!r}: a code must be below {MAX_CODES:,}.")
            codes[code] = token_id
    return tokens


def detect_layout(vocabulary: Mapping[str, int]) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The known pattern that most tokens match, and the known tokens before and after a SID; empty if there are none.

    Raises:
        ArgumentError: no token matches a known pattern.
    """
    counts = {pattern: sum(map(len, tokens_of_pattern(vocabulary, pattern).values())) for pattern in KNOWN_PATTERNS}
    pattern = max(counts, key=lambda pattern: counts[pattern])
    if not counts[pattern]:
        raise ArgumentError(
            f"the tokenizer has no tokens like {', '.join(KNOWN_PATTERNS)}; it has, for example, "
            f"{_last_tokens(vocabulary)}. Pass its pattern: TokenMap.from_tokenizer(tokenizer, pattern)."
        )
    for begin, end in KNOWN_DELIMITERS:
        if begin in vocabulary and end in vocabulary:
            return pattern, (begin,), (end,)
    return pattern, (), ()


def delimiter_ids(vocabulary: Mapping[str, int], tokens: Any, name: str) -> tuple[Any, ...]:
    """The ids of tokens that are given as text or ids.

    Raises:
        ArgumentError: the vocabulary has no such token.
    """
    ids = []
    for token in as_tuple(tokens):
        if isinstance(token, str) and token not in vocabulary:
            raise ArgumentError(f"{name}: {token!r} is not a token of the vocabulary. Pass another token, or an id.")
        ids.append(vocabulary[token] if isinstance(token, str) else token)
    return tuple(ids)


def size_per_level(sizes: int | Sequence[int], num_levels: int) -> tuple[int, ...]:
    """The codebook size of each level.

    Raises:
        ArgumentError: `sizes` is not one size or one per level, or a size is out of range.
    """
    per_level = tuple(sizes) if isinstance(sizes, Iterable) else (sizes,) * num_levels
    if len(per_level) != num_levels or not all(is_whole(size, 1, MAX_CODES) for size in per_level):
        raise ArgumentError(
            f"codebook_sizes must be one positive integer, or {num_levels} of them, each at most {MAX_CODES:,}; "
            f"got {sizes!r}."
        )
    return tuple(map(int, per_level))


def as_tuple(value: Any) -> tuple[Any, ...]:
    """One value or a sequence of values as a tuple."""
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)


def checked_table(level: int, values: Any) -> np.ndarray:
    """A copy of one level's token ids, read-only.

    Raises:
        ArgumentError: they are not integers [C] from -1, or two codes have the same token.
    """
    check_unmasked(values, f"level {level}: token ids", "-1 is a code without a token: values.filled(-1).")
    table = np.array(values)
    if table.ndim != 1 or not table.size or table.dtype.kind not in "iu":
        raise ArgumentError(
            f"level {level}: expected integers [C], the token id of each code; got {table.dtype} {list(table.shape)}."
        )
    table = table.astype(np.int64)
    if table.min() < NO_TOKEN:
        raise ArgumentError(
            f"level {level}: a token id must be at least 0, or -1 for a code without a token; got {table.min()}."
        )
    present = np.sort(table[table != NO_TOKEN])
    repeated = present[1:][present[1:] == present[:-1]]
    if repeated.size:
        codes = np.flatnonzero(table == repeated[0])
        raise ArgumentError(
            f"level {level}: token {repeated[0]} stands for two codes, {codes[0]} and {codes[1]}. Each code of a level "
            "needs a token of its own."
        )
    table.setflags(write=False)
    return table


def checked_delimiter(name: str, ids: Any) -> tuple[int, ...]:
    """The ids of the tokens before or after a SID.

    Raises:
        ArgumentError: they are not token ids; `name` names them.
    """
    ids = as_tuple(ids)
    for token in ids:
        if not is_whole(token, 0):
            raise ArgumentError(f"{name} must be token ids, integers from 0; got {token!r}.")
    return tuple(map(int, ids))


def check_no_ends(index: Trie, tables: Sequence[np.ndarray]) -> None:
    """Check that a map has no tokens for the end codes of an index, for which it has `end`.

    Raises:
        ArgumentError: it has such tokens.
    """
    ends = [(table, level.end) for level, table in zip(index.levels, tables, strict=True)]
    sizes = [len(table) for table in tables]
    if sizes == list(index.codebook_sizes) and all(end is None or table[end] != NO_TOKEN for table, end in ends):
        codes = [len(table) - (end is not None) for table, end in ends]
        raise ArgumentError(
            f"the token map has {sizes} codes, as many as index.codebook_sizes, which count the end code; its token is "
            f"end=. Make the token map without end codes, codebook_sizes={codes}; or, if the model has so many codes, "
            "build the catalog with these sizes."
        )


def with_end(level_number: int, level: AnyLevel, table: np.ndarray, token: int) -> np.ndarray:
    """A level's tokens with the end token inserted at its end code; the codes after it move up by one.

    Raises:
        ArgumentError: the token stands for a code that the catalog uses.
    """
    clash = np.flatnonzero(table == token)
    if clash.size and clash[0] != level.end and (level.codes == clash[0]).any():
        raise ArgumentError(
            f"level {level_number}: the end token {token} is also the token of code {clash[0]}, which the catalog "
            "uses. Pass another end token."
        )
    # If the codes are the model's own vocabulary, the end token is one of them, and no SID has that code.
    table = np.where(table == token, NO_TOKEN, table)
    if level.end is None:
        return table
    table = np.pad(table, (0, max(0, level.end - len(table))), constant_values=NO_TOKEN)
    return np.insert(table, level.end, token)


def _sorted_labels(tokens: Tokens) -> list[str]:
    """The labels of the levels in their order: numbers by value."""
    return sorted(tokens, key=label_key)


def _table(tokens: Mapping[int, int], size: int) -> np.ndarray:
    table = np.full(size, NO_TOKEN, np.int64)
    for code, token_id in tokens.items():
        if code < size:
            table[code] = token_id
    return table


def _token_name(pattern: str, label: str, code: int) -> str:
    return pattern.replace("{level}", label).replace("{code}", str(code))


def _last_tokens(vocabulary: Mapping[str, int]) -> str:
    """The tokens with the largest ids, which include those that were added last."""
    last = sorted(vocabulary, key=lambda token: vocabulary[token])[-LISTED_TOKENS:]
    return ", ".join(map(repr, last)) or "no tokens at all"


def encoder(table: np.ndarray) -> Translator:
    """Maps a column of codes to the token ids of a table; an ArgumentError for a code without a token."""

    def encode(codes: np.ndarray) -> np.ndarray:
        in_range = (codes >= 0) & (codes < len(table))
        ids = np.where(in_range, table[np.where(in_range, codes, 0)], NO_TOKEN)
        if (ids == NO_TOKEN).any():
            raise ArgumentError(
                f"code {codes[ids == NO_TOKEN][0]} has no token; the codes of its level are 0 to {len(table) - 1}."
            )
        return ids

    return encode


def decoder(table: np.ndarray) -> Translator:
    """Maps a column of token ids to the codes of a table, or -1."""
    order = np.argsort(table)
    sorted_ids = table[order]

    def decode(ids: np.ndarray) -> np.ndarray:
        nearest = np.minimum(np.searchsorted(sorted_ids, ids), len(sorted_ids) - 1)
        return np.where((sorted_ids[nearest] == ids) & (ids >= 0), order[nearest], -1)

    return decode


def translated(values: np.ndarray, translators: list[Translator]) -> np.ndarray:
    """Translate integers [..., L], one translator per level.

    Raises:
        ArgumentError: they are no integers, or the last axis is not L long.
    """
    levels = len(translators)
    if values.ndim < 2 or values.shape[-1] != levels or values.dtype.kind not in "iu":
        raise ArgumentError(
            f"expected integers [R, {levels}], one column per level; got {values.dtype} {list(values.shape)}."
        )
    return np.stack([translate(values[..., level]) for level, translate in enumerate(translators)], axis=-1)


def check_used_codes(index: Trie, tables: Sequence[np.ndarray]) -> None:
    """Check that every code that an index uses has a token.

    Raises:
        ArgumentError: codes of a level have none; the message names them.
    """
    for level_number, (level, table) in enumerate(zip(index.levels, tables, strict=True)):
        is_small = level.codebook_size <= MAX_COUNTED_CODES
        used = np.flatnonzero(np.bincount(level.codes)) if is_small else np.unique(level.codes)
        missing = [code for code in used.tolist() if code >= len(table) or table[code] == NO_TOKEN]
        if missing:
            listed = ", ".join(map(str, missing[:LISTED_CODES])) + " ..." * (len(missing) > LISTED_CODES)
            raise ArgumentError(
                f"{len(missing):,} codes that the catalog uses at level {level_number} have no token: {listed}. "
                "Use the tokenizer and the catalog of one model, or add the tokens to the tokenizer first."
            )


def logits_of_codes(logits: Any, tables: Sequence[np.ndarray], sizes: Sequence[int]) -> list[Any]:
    """The logits of codes from those of a vocabulary: see `TokenMap.code_logits`.

    Args:
        logits: [..., L, V], of any backend.
        tables: L tables of token ids.
        sizes: C of each level.

    Raises:
        ArgumentError: the last axes are not L and V, or V is too small for the tokens.
    """
    from array_api_compat import array_namespace, device

    xp = array_namespace(logits)
    if logits.ndim < 2 or logits.shape[-2] != len(tables):
        raise ArgumentError(
            f"logits must be [..., {len(tables)}, V], with one position per level; got {list(logits.shape)}."
        )
    highest = max(int(table.max()) for table in tables if len(table))
    if highest >= logits.shape[-1]:
        raise ArgumentError(f"the token map names token {highest}, but the logits have {logits.shape[-1]} tokens.")
    found = []
    for level, (table, size) in enumerate(zip(tables, sizes, strict=True)):
        padded = np.full(size, NO_TOKEN)
        padded[: len(table)] = table[:size]
        columns = xp.asarray(padded, device=device(logits))
        taken = xp.take(logits[..., level, :], xp.where(columns >= 0, columns, 0), axis=-1)
        found.append(xp.where(columns >= 0, taken, -float("inf")))
    return found
