"""The JSON documents of responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from hedgerow.hf.plot import levels_of
from hedgerow.hf.tracing import Trace
from hedgerow.results import Results
from hedgerow.serve import schemas
from hedgerow.serve.asking import Answered, Ask, RefusedError
from hedgerow.serve.engine import Engine
from hedgerow.serve.metrics import age_of
from hedgerow.serve.settings import Settings

TYPES = {
    400: "invalid_request_error",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    408: "timeout",
    405: "invalid_request_error",
    409: "invalid_request_error",
    413: "too_large",
    415: "unsupported_media_type",
    429: "rate_limited",
    503: "unavailable",
    504: "timeout",
}


def as_json(document: Any) -> bytes:
    """Write a document as JSON. NaN and infinities become null; values without a JSON form, such as decimals, text."""
    return orjson.dumps(document, default=str, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def error_of(refusal: RefusedError) -> schemas.Error:
    """The document of an error, in the form of OpenAI's."""
    return {
        "error": {
            "message": refusal.message,
            "type": TYPES.get(refusal.status, "server_error"),
            "param": refusal.param,
            "code": refusal.code,
        }
    }


def items_of(results: Results, fields: Sequence[str] | None) -> list[schemas.Item]:
    """The items of results.

    Raises:
        RefusedError: there is no such attribute.
    """
    attributes = results.attributes
    if fields is not None:
        check_fields(fields, attributes.column_names)
        attributes = attributes.select(list(dict.fromkeys(fields)))
    columns = {name: _plain(attributes.column(name)) for name in attributes.column_names}
    values = [{name: column[row] for name, column in columns.items()} for row in range(len(results))]
    sids = [[code for code in sid if code >= 0] for sid in results.sids.tolist()]
    rows = zip(results.item_ids, results.scores.tolist(), sids, values, strict=True)
    return [
        {"item_id": item_id, "score": score, "sid": sid, "attributes": of_item} for item_id, score, sid, of_item in rows
    ]


def _plain(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column; as text, if Python has no such values, for example dates beyond the year 9999."""
    try:
        return column.to_pylist()
    except (ValueError, OverflowError):
        return [str(value) for value in column.cast("string").to_pylist()]


def check_fields(fields: Sequence[str], names: Sequence[str]) -> None:
    """Check that attributes exist.

    Raises:
        RefusedError: one does not.
    """
    unknown = [name for name in fields if name not in names]
    if unknown:
        known = ", ".join(names) or "none"
        raise RefusedError(
            400, "unknown_field", f"there is no attribute {unknown[0]!r}; the attributes are {known}.", param="fields"
        )


def answer_of(answered: Answered, ask: Ask, fields: Sequence[str] | None, *, seconds: float) -> schemas.Answer:
    """The document of one answer."""
    results = answered.results
    return {
        "version": answered.version,
        "items": items_of(results, fields),
        "num_valid": results.num_valid,
        "complete": results.complete,
        "reason": results.reason,
        "beam_width": ask.beam_width,
        "unknown_history": unknown_of(answered.unknown),
        "timings": {
            "queue_ms": _milliseconds(answered.queue_seconds),
            "check_ms": _milliseconds(answered.check_seconds),
            "search_ms": _milliseconds(answered.search_seconds),
            "total_ms": _milliseconds(seconds),
            "batch_size": answered.batch_size,
        },
    }


def unknown_of(unknown: tuple[int, list[Any]] | None) -> schemas.UnknownIds | None:
    """The document about ids of a history that the index does not have."""
    return None if unknown is None else {"count": unknown[0], "first": unknown[1]}


def timings_of(*, queue: float, search: float, total: float) -> schemas.Timings:
    """The timings of a request that is answered alone, from the seconds of each phase."""
    return {
        "queue_ms": _milliseconds(queue),
        "search_ms": _milliseconds(search),
        "total_ms": _milliseconds(total),
        "batch_size": 1,
    }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def scores_of(item_ids: Sequence[Any], scores: np.ndarray) -> list[schemas.ItemScore]:
    """The scores of items."""
    return [{"item_id": item_id, "score": score} for item_id, score in zip(item_ids, scores.tolist(), strict=True)]


def levels_of_trace(trace: Trace) -> list[schemas.TracedLevel]:
    """The beams of every level of a search."""
    levels: list[schemas.TracedLevel] = []
    for number, (level, masked, by_rules) in enumerate(
        zip(levels_of(trace.history), trace.masked, trace.by_rules, strict=True)
    ):
        parents = level.parents.tolist() if number else [-1] * len(level.scores)
        beams: list[schemas.TracedBeam] = [
            {
                "code": prefix[-1],
                "prefix": prefix,
                "parent": parent,
                "score": score,
                "probability": probability,
                "survives": survives,
                "rank": rank + 1,
            }
            for prefix, parent, score, probability, survives, rank in zip(
                level.codes.tolist(),
                parents,
                level.scores.tolist(),
                np.exp(level.scores.astype(np.float64)).tolist(),
                level.survives.tolist(),
                level.ranks.tolist(),
                strict=True,
            )
        ]
        # A level without beams has no probability to remove.
        shares = [0.0 if np.isnan(share) else share for share in (masked, by_rules)]
        levels.append(
            {"level": number, "beams": beams, "masked_probability": shares[0], "rules_probability": shares[1]}
        )
    return levels


def numbers_of(engine: Engine) -> list[int]:
    """The versions that requests can name, the current one first."""
    return [number for number in engine.served if number is not None]


def index_of(
    engine: Engine, settings: Settings, *, model: str, index: str, refused: schemas.Refused | None
) -> schemas.Index:
    """The document that describes what is served."""
    current, canary = engine.current, engine.canary
    version, trie = current.version, current.index
    schema = trie.attributes.schema
    return {
        "model": model,
        "index": index,
        "live": version is not None,
        "version": current.number,
        "versions": numbers_of(engine),
        "num_items": current.num_items,
        "num_levels": trie.num_levels,
        "codebook_sizes": list(trie.codebook_sizes),
        "created": None if version is None else version.info.created,
        "age_seconds": age_of(current),
        "sets": [
            {"name": name, "rule": current.rules[name].text, "num_items": len(items)}
            for name, items in current.sets.items()
        ],
        "item_id_type": str(trie.item_ids.type),
        "attributes": [{"name": field.name, "type": str(field.type)} for field in schema],
        "allows_where": settings.allow_where,
        "beam_widths": list(settings.beam_widths),
        "default_beam_width": settings.default_beam_width or settings.beam_widths[0],
        "max_k": settings.limits.k,
        "canary": None if canary is None else {"version": canary.number, "share": engine.canary_share},
        "refused": refused,
    }
