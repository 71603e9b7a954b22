"""Guards of DuckDB's functions: macros that replace those which can make values of any size from a short expression.

DuckDB's memory limit does not count these values, and it cannot be interrupted while it makes one. The same holds for
the tables that distances of texts need.
"""

from __future__ import annotations

import re

# The largest number of characters, or of values of a list.
MAX_LENGTH = 100_000
# Functions of the clock that DuckDB marks as constant, and samples.
TIME_FUNCTIONS = r"(current|local)_?\w*$|(ago|age|today|now|sample|tablesample)$"
# A call through a schema would go past the macros.
GUARDED_FUNCTIONS = re.compile(
    r'\b(system|main|pg_catalog|temp)"?\s*\.\s*("?\w+"?\s*\.\s*)?"?\w+"?\s*\(', re.IGNORECASE
)

# (parameters, the parameter that sets the length, the length of the result)
_Signature = tuple[str, str, str]


def _macro(name: str, *signatures: _Signature) -> str:
    return f"CREATE TEMP MACRO {name} " + ", ".join(_guarded(name, *signature) for signature in signatures) + ";"


def _guarded(name: str, parameters: str, sized_by: str, length: str) -> str:
    """One signature of a macro that refuses results of more than MAX_LENGTH."""
    error = f"error('{name}() gives more than {MAX_LENGTH:,} characters or values')"
    # DuckDB computes calls with constant arguments in advance, in branches that are not taken as well.
    bounded = f"CASE WHEN {length} > {MAX_LENGTH} THEN NULL ELSE {sized_by} END"
    arguments = ", ".join(bounded if each == sized_by else each for each in parameters.split(", "))
    call = f"system.main.{name}({arguments})"
    return f"({parameters}) AS CASE WHEN {length} > {MAX_LENGTH} THEN {error} ELSE {call} END"


def _number(parameter: str, kind: str) -> str:
    """A number, a moment or an interval as a number."""
    text = f"{parameter}::VARCHAR"
    return f"coalesce(TRY_CAST({text} AS DOUBLE), epoch(TRY_CAST({text} AS {kind})))"


_SPAN = f"abs(({_number('b', 'TIMESTAMP')} - {_number('a', 'TIMESTAMP')}) / nullif({_number('s', 'INTERVAL')}, 0))"
_RANGES = (("a", "a", "a"), ("a, b", "b", "b::DOUBLE - a"), ("a, b, s", "b", _SPAN))
# A width of six digits, or one that is an argument itself.
_WIDE = f"CASE WHEN regexp_matches(f, '\\d{{6}}|[*]|[{{][^}}]*[{{]') THEN {MAX_LENGTH + 1} END"
_FORMATS = tuple((", ".join("fabcdeghi"[:count]), "f", _WIDE) for count in range(1, 10))
_PRODUCT = "strlen(a::VARCHAR)::DOUBLE * strlen(b::VARCHAR)"
_DISTANCES = ("levenshtein", "editdist3", "damerau_levenshtein", "jaro_similarity", "jaro_winkler_similarity")
GUARDS = "".join(
    (
        # The table of a distance has as many cells.
        *(_macro(name, ("a, b", "b", _PRODUCT)) for name in _DISTANCES),
        _macro("replace", ("s, a, b", "b", "strlen(s::VARCHAR)::DOUBLE * greatest(strlen(b::VARCHAR), 1)")),
        _macro(
            "regexp_replace",
            ("s, a, b", "b", "strlen(s::VARCHAR)::DOUBLE * greatest(strlen(b::VARCHAR), 1)"),
            ("s, a, b, o", "b", "strlen(s::VARCHAR)::DOUBLE * greatest(strlen(b::VARCHAR), 1)"),
        ),
        _macro("repeat", ("s, n", "n", "strlen(s::VARCHAR) * n::DOUBLE")),
        *(_macro(name, *_RANGES) for name in ("range", "generate_series")),
        *(_macro(name, ("s, n, f", "n", "n")) for name in ("lpad", "rpad")),
        *(_macro(name, ("l, n", "n", "n"), ("l, n, v", "n", "n")) for name in ("list_resize", "array_resize")),
        _macro("bar", ("x, a, b", "x", "80"), ("x, a, b, w", "w", "w")),
        _macro("bitstring", ("s, n", "n", "n")),
        *(_macro(name, *_FORMATS) for name in ("format", "printf")),
    )
)
