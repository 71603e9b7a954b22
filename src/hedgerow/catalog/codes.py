"""SIDs written as text: tokens, as in <a_2><b_6>, or numbers, as in 2-6-4."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from hedgerow.catalog.sids import MAX_CODE
from hedgerow.errors import CatalogError

# The layouts of OneRec, of MiniOneRec and LC-Rec, and of other published models.
KNOWN_PATTERNS = (
    "<s_{level}_{code}>",
    "<{level}_{code}>",
    "<|sid_{level}_{code}|>",
    "<sid_{level}_{code}>",
    "<|{level}_{code}|>",
    "[{level}_{code}]",
)
KNOWN_DELIMITERS = (("<|sid_begin|>", "<|sid_end|>"), ("<|sid_start|>", "<|sid_end|>"), ("<sid>", "</sid>"))
FORMS = 'a list of integer codes, tokens ("<a_2><b_6>") or numbers ("2-6-4" or "2,6,4")'


def _expression(pattern: str) -> str:
    """The regular expression of a token, with the groups level and code."""
    escaped = re.escape(pattern)
    return escaped.replace(r"\{level\}", "([A-Za-z]|[0-9]+)").replace(r"\{code\}", "([0-9]+)")


TOKENS = tuple(re.compile(_expression(pattern)) for pattern in KNOWN_PATTERNS)
ANY_TOKEN = re.compile("|".join(_expression(pattern).replace("(", "(?:") for pattern in KNOWN_PATTERNS))
GAP = r"[\s,;|-]*"
TEXT_OF_TOKENS = re.compile(rf"[\[(]?\s*(?:{ANY_TOKEN.pattern})(?:{GAP}(?:{ANY_TOKEN.pattern}))*\s*[\])]?")
NUMBER = re.compile("-?[0-9]+")
# One number alone is no SID, because it can be an item id; "[2]" and "(2,)" are SIDs.
TEXT_OF_NUMBERS = re.compile(
    r"[0-9]+(?:-[0-9]+)+"
    r"|-?[0-9]+(?:\s*[,;|/:_]\s*-?[0-9]+|\s+-?[0-9]+)+"
    r"|[\[(]\s*-?[0-9]+(?:\s*,\s*-?[0-9]+|\s+-?[0-9]+)*\s*,?\s*[\])]"
)
IGNORED = re.compile("|".join([*(re.escape(token) for pair in KNOWN_DELIMITERS for token in pair), "['\"]"]))


def is_text(sid: Any) -> bool:
    """Whether a SID is text, or a sequence of text."""
    if isinstance(sid, str):
        return True
    return isinstance(sid, (Sequence, np.ndarray)) and len(sid) > 0 and all(isinstance(piece, str) for piece in sid)


def num_codes(text: Any, *, lone: bool = False) -> int:
    """The number of codes of a SID as text; 0 if it is not one. If `lone`, one number is a SID of one code."""
    return len(_pieces(text, lone=lone) or ()) if isinstance(text, str) else 0


def looks_like_tokens(text: Any) -> bool:
    """Whether text is a SID of tokens."""
    return isinstance(text, str) and bool(TEXT_OF_TOKENS.fullmatch(IGNORED.sub("", text).strip()))


def _pieces(text: str, *, lone: bool) -> list[str] | None:
    """The tokens or numbers of a SID in one text; None if it is no SID."""
    text = IGNORED.sub("", text).strip()
    if lone and NUMBER.fullmatch(text):
        return [text]
    if TEXT_OF_TOKENS.fullmatch(text):
        return ANY_TOKEN.findall(text)
    if not TEXT_OF_NUMBERS.fullmatch(text):
        return None
    return text.split("-") if re.fullmatch("[0-9]+(-[0-9]+)+", text) else NUMBER.findall(text)


class TextParser:
    """Parses the SIDs of one catalog, and checks that each level has one label: <a_2> is a code of level "a".

    Args:
        lone: whether one number is a SID. Otherwise it is one only after SIDs of several codes.

    Attributes:
        labels: the label of each level, as far as SIDs had tokens there. Their order is that of a `TokenMap`.
    """

    def __init__(self, *, lone: bool = False) -> None:
        self._lone = lone
        self.labels: dict[int, str] = {}
        self._codes: dict[tuple[int, str], int] = {}

    def codes(self, sid: Any, where: str) -> list[int]:
        """The codes of a SID.

        Args:
            sid: text, or a sequence of text with one token or number per level.
            where: the place of the SID in the message.

        Raises:
            CatalogError: it is not a SID.
        """
        pieces = _pieces(sid, lone=self._lone) if isinstance(sid, str) else sid if is_text(sid) else None
        if pieces is None:
            raise CatalogError(f"{where}: expected {FORMS}; got {sid!r}.")
        self._lone = self._lone or len(pieces) > 1
        return [self.code(piece, level, where) for level, piece in enumerate(pieces)]

    def code(self, piece: str, level: int, where: str) -> int:
        """The code of a token or a number at a level.

        Raises:
            CatalogError: it is neither, or a token of another level.
        """
        known = self._codes.get((level, piece))
        if known is None:
            known = self._codes[level, piece] = self._parsed(piece, level, where)
        return known

    def _parsed(self, piece: str, level: int, where: str) -> int:
        piece = piece.strip()
        match = next(filter(None, (token.fullmatch(piece) for token in TOKENS)), None)
        if match is None and not NUMBER.fullmatch(piece):
            examples = ", ".join(_example(pattern) for pattern in KNOWN_PATTERNS)
            raise CatalogError(
                f"{where}, level {level}: {piece!r} is not a code; expected a number, or a token such as {examples}. "
                "For other tokens, pass the codes: TokenMap.from_tokenizer(tokenizer, pattern).decode(ids)."
            )
        if match is not None:
            self._check_label(match[1], piece, level, where)
        code = int(match[2] if match else piece)
        if code > MAX_CODE:
            raise CatalogError(f"{where}, level {level}: code {code} is out of range; codes are 0 to {MAX_CODE}.")
        return code

    def _check_label(self, label: str, token: str, level: int, where: str) -> None:
        expected = self.labels.setdefault(level, label)
        if label != expected:
            raise CatalogError(
                f"{where}, level {level}: {token!r} is a token of level {expected!r} in other SIDs, but of {label!r} "
                "here. Write the tokens of each SID in the order of the levels."
            )
        for other, before in self.labels.items():
            if other < level and label_key(before) >= label_key(label):
                raise CatalogError(
                    f"{where}, level {level}: {token!r} follows a token of level {before!r}. Write the tokens of each "
                    "SID in the order of the levels."
                )


def label_key(label: str) -> tuple[int, str]:
    """The sort key of the label of a level: numbers by value, letters by the alphabet."""
    return len(label), label


def parsed(sids: Any, *, ragged: bool) -> Any:
    """Parse the SIDs of rows if the first one is text; return other objects unchanged."""
    is_rows = isinstance(sids, (list, tuple)) or (isinstance(sids, np.ndarray) and sids.ndim > 0)
    return codes_of_rows(list(sids), ragged=ragged) if is_rows and len(sids) and is_text(sids[0]) else sids


def codes_of_rows(rows: Sequence[Any], what: str = "sids", *, ragged: bool = False) -> list[list[int]]:
    """Parse the SIDs of rows, all of which are text.

    Args:
        rows: the SIDs.
        what: the name of the column in messages.
        ragged: whether SIDs may have different lengths, so that one number is a SID.

    Raises:
        CatalogError: a row is not a SID. The message names the row.
    """
    parser = TextParser(lone=ragged)
    return [parser.codes(sid, f"row {row} of {what}") for row, sid in enumerate(rows)]


def _example(pattern: str) -> str:
    return pattern.replace("{level}", "a").replace("{code}", "2")
