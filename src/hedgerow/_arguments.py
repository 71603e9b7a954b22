"""Argument checks, and the form of JSON, that several packages share."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from numbers import Real
from typing import Any

import numpy as np

from hedgerow.errors import ArgumentError, HedgerowError


def is_whole(value: Any, least: int = 1, most: int | None = None) -> bool:
    """Whether a value is a Python or NumPy integer from `least` to `most`. A bool is not an integer."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        return False
    return int(value) >= least and (most is None or int(value) <= most)


def whole_number(
    value: Any, name: str, least: int = 1, most: int | None = None, *, error: type[HedgerowError] = ArgumentError
) -> int:
    """Convert an integer argument to int.

    Args:
        value: the argument.
        name: its name in the message.
        least: the minimum.
        most: the maximum. Default: no maximum.
        error: the exception to raise.

    Raises:
        error: `value` is not an integer from `least` to `most`.
    """
    if not is_whole(value, least, most):
        expected = "a positive integer" if least == 1 else f"an integer from {least:,}"
        limit = "" if most is None else f" up to {most:,}"
        raise error(f"{name} must be {expected}{limit}; got {value!r}.")
    return int(value)


def check_choice(
    value: Any, name: str, choices: Sequence[str | None], *, error: type[HedgerowError] = ArgumentError
) -> None:
    """Check that an argument is one of a few values.

    Args:
        value: the argument.
        name: its name in the message.
        choices: the valid values.
        error: the exception to raise.

    Raises:
        error: `value` is not one of `choices`.
    """
    # Only None and text are compared: an array has no truth value.
    if not (value is None or isinstance(value, str)) or value not in choices:
        raise error(f"{name} must be one of {', '.join(map(str, choices))}; got {value!r}.")


def positive_number(value: Any, name: str) -> float:
    """Convert a finite number above 0 to float.

    Raises:
        ArgumentError: `value` is not a finite number above 0.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
        raise ArgumentError(f"{name} must be a finite number above 0; got {value!r}.")
    return float(value)


def check_unmasked(value: Any, what: str, advice: str, *, error: type[HedgerowError] = ArgumentError) -> None:
    """Check that no entry of an array, or of the arrays of a list, is masked: NumPy's conversions drop the mask.

    Args:
        value: a value of any type; only a `numpy.ma.MaskedArray` has a mask.
        what: its name in the message.
        advice: a sentence with the way out.
        error: the exception to raise.

    Raises:
        error: an entry is masked.
    """
    rows = value if isinstance(value, list | tuple) and value and isinstance(value[0], np.ndarray) else (value,)
    if any(map(np.ma.is_masked, rows)):
        raise error(f"{what} must not have masked entries, because masks are not read. {advice}")


def distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of JSON pairs: an `object_pairs_hook`.

    Raises:
        ValueError: a key is repeated.
    """
    items = dict(pairs)
    if len(items) < len(pairs):
        repeated = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"an object contains {repeated!r} twice; keys must be distinct")
    return items


def json_text(facts: Any, *, indent: int | None = None) -> str:
    """Write valid JSON: NaN and infinities become null; values without a JSON form, for example dates, become text."""
    text = json.dumps(_finite(facts), indent=indent, ensure_ascii=False, allow_nan=False, default=str)
    # Programs that split text by Unicode's rules would take these for ends of a line.
    return text.translate({code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)})


def _finite(facts: Any) -> Any:
    if isinstance(facts, dict):
        return {name: _finite(value) for name, value in facts.items()}
    if isinstance(facts, list | tuple):
        return [_finite(value) for value in facts]
    return None if isinstance(facts, float) and not math.isfinite(facts) else facts


def advice_on_name(name: str, names: Sequence[str], plural: str) -> str:
    """The end of a message about an unknown name: "; did you mean 'title'?" or "; the attributes are title, year."."""
    similar = get_close_matches(name, names, 1)
    return f"; did you mean {similar[0]!r}?" if similar else f"; the {plural} are {', '.join(names) or 'none'}."
