"""CatalogLogitProcessor: makes SGLang write only SIDs of the catalog, one path per request: greedy or sampled.

SGLang's own beams take the best raw logits before any processor, so they are not constrained by it.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from hedgerow.errors import ArgumentError

if TYPE_CHECKING:
    from hedgerow.vllm.rows import RowRules
    from hedgerow.vllm.writing import Writing

try:
    from sglang.srt.sampling.custom_logit_processor import (  # pyright: ignore[reportMissingImports]
        CustomLogitProcessor,
    )
except ImportError:
    # Without SGLang, only the tests use the class.
    CustomLogitProcessor: Any = object

LOGGER = logging.getLogger(__name__)
KEY, MODEL = "hedgerow", "HEDGEROW_MODEL"
# Those of the requests that run.
_RULES: WeakKeyDictionary[Any, RowRules | None] = WeakKeyDictionary()


class CatalogLogitProcessor(CustomLogitProcessor):  # type: ignore[misc]
    """Constrains the requests whose `custom_params` have "hedgerow", a mapping as for vLLM's `CatalogProcessor`.

    The processes of SGLang read HEDGEROW_INDEX, HEDGEROW_RULES and HEDGEROW_MODEL, the folder of the model with its
    tokenizer. Rules that are invalid, which SGLang cannot refuse, end the text at once, and are logged.
    """

    def __call__(self, logits: Tensor, custom_param_list: list[dict[str, Any]] | None = None) -> Tensor:
        """Mask the rows of the requests that have rules. SGLang calls this.

        Args:
            logits: [R, V], changed in place.
            custom_param_list: for each row the parameters of its request, with the request itself as "__req__".
        """
        given = [(row, params) for row, params in enumerate(custom_param_list or ()) if params and KEY in params]
        if not given:
            return logits
        writing = _writing(os.environ.get(MODEL, ""))
        places, ids, written, asked = [], [], [], []
        for row, params in given:
            request = params["__req__"]
            rules = _rules(writing, request, params[KEY])
            if rules is None:
                logits[row] = writing.masks.ended(logits[row : row + 1])[0]
                continue
            prompt, output = request.origin_input_ids, request.output_ids
            places.append(row)
            ids.append(writing.masks.last_tokens(prompt, output))
            written.append(rules.written + len(output))
            asked.append(rules)
        if places:
            parts = [torch.tensor(part, device=logits.device) for part in (places, ids, written)]
            masked = writing.masks.masked(parts[1], parts[2], logits[parts[0]], asked)
            logits[parts[0]] = masked.to(logits.dtype)
        return logits


@functools.cache
def _writing(model: str) -> Writing:
    from hedgerow.vllm.writing import Writing

    if not model:
        raise ArgumentError(f"set {MODEL} to the folder of the model, so that its tokens are known.")
    return Writing(model)


def _rules(writing: Writing, request: Any, given: Any) -> RowRules | None:
    """The rules of a request, which are made at its first token; None if they are invalid."""
    if request not in _RULES:
        try:
            if not isinstance(given, Mapping):
                raise ArgumentError(f"hedgerow must be an object; got {type(given).__name__}.")
            _RULES[request] = writing.rules(given)
        except Exception as error:
            # Whatever it is, an exception would end the scheduler for all requests.
            LOGGER.error("hedgerow: the rules of a request are invalid: %r", error)
            _RULES[request] = None
    return _RULES[request]
