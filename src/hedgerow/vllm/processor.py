"""CatalogProcessor: makes vLLM write only SIDs of the catalog: greedy, sampled, and within text.

One class has the interfaces of both model runners of vLLM. vLLM loads it in each of its processes that generate, so
without HEDGEROW_INDEX it imports nothing else and does nothing.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import (  # pyright: ignore[reportMissingImports]
    LogitsProcessor,
    MoveDirectionality,
)

from hedgerow.vllm.settings import is_configured, read_settings

if TYPE_CHECKING:
    from hedgerow.vllm.rows import RowRules
    from hedgerow.vllm.writing import Writing

try:
    from vllm.v1.worker.gpu.sample.logits_processor import (  # pyright: ignore[reportMissingImports]
        LogitsProcessor as LogitsProcessorV2,
    )

    BASES: tuple[Any, ...] = (LogitsProcessor, LogitsProcessorV2)
except ImportError:
    BASES = (LogitsProcessor,)

KEY = "hedgerow"
FIELDS = {"sets": list, "exclude": list, "written": int, "log_probs": bool}


class CatalogProcessor(*BASES):  # type: ignore[misc]
    """Constrains the requests whose `SamplingParams.extra_args` have "hedgerow", a mapping (or its JSON) of:

    - sets: names of sets, all of which the items must be in. The sets are those at the start of vLLM.
    - exclude: ids of items that are not written.
    - written: the number of codes at the end of the prompt that the first SID begins with. Default: 0.
    - log_probs: whether the scores become log-probabilities over the vocabulary, for `logprobs_mode`.

    If the token map has a begin delimiter, the request writes text, and a SID after each delimiter; otherwise it writes
    SIDs. A request whose rules allow no item writes the end of the text.
    """

    @classmethod
    def validate_params(cls, params: Any) -> None:
        """Check the rules of a request before it is accepted.

        Raises:
            ValueError: they are invalid, or there is no index.
        """
        given = _given(params)
        if given is None:
            return
        if not is_configured():
            raise ValueError("extra_args has 'hedgerow', but vLLM was started without HEDGEROW_INDEX.")
        if not isinstance(given, Mapping) or not given.keys() <= FIELDS.keys():
            raise ValueError(f"hedgerow must be an object with {', '.join(FIELDS)}; got {str(given)[:200]}.")
        for name, value in given.items():
            if not isinstance(value, FIELDS[name]) or (FIELDS[name] is int and (isinstance(value, bool) or value < 0)):
                raise ValueError(f"hedgerow.{name} must be of type {FIELDS[name].__name__}; got {value!r}.")
        known = _rule_names()
        unknown = [name for name in given.get("sets", ()) if name not in known]
        if unknown:
            raise ValueError(f"there is no set {unknown[0]!r}; the sets are {', '.join(sorted(known)) or 'none'}.")
        if not all(isinstance(item, str | int | float) for item in given.get("exclude", ())):
            raise ValueError("hedgerow.exclude must be a list of item ids.")

    def __init__(self, vllm_config: Any, states: Any, is_pin_memory: bool | None = None) -> None:  # noqa: ARG002, FBT001
        """Load the index.

        Args:
            vllm_config: vLLM's configuration.
            states: the device (V1), or the tokens of all requests (V2).
            is_pin_memory: only V1 passes it.
        """
        self._states = states
        self._catalog = _writing(vllm_config.model_config) if is_configured() else None
        # V1: by row, with the tokens of the prompt and of the output. V2: by slot.
        self._rows: dict[int, tuple[RowRules, Sequence[int], Sequence[int]]] = {}
        self._slots: dict[int, RowRules] = {}

    def is_argmax_invariant(self) -> bool:
        """False: the best token may be another."""
        return False

    # The interface of the V1 model runner.

    def update_state(self, batch_update: Any) -> None:
        """Follow the requests of the batch (V1)."""
        if batch_update is None or self._catalog is None:
            return
        for row in batch_update.removed:
            self._rows.pop(row, None)
        for row, params, prompt, output in batch_update.added:
            rules = self._catalog.rules(_given(params))
            self._rows.pop(row, None)
            if rules is not None:
                self._rows[row] = rules, prompt or (), output
        for one, other, way in batch_update.moved:
            first, second = self._rows.pop(one, None), self._rows.pop(other, None)
            if first is not None:
                self._rows[other] = first
            if second is not None and way == MoveDirectionality.SWAP:
                self._rows[one] = second

    # The interface of the V2 model runner.

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Note the rules of a request (V2), and say whether it has any."""
        rules = None if self._catalog is None else self._catalog.rules(_given(sampling_params))
        self._slots.pop(req_idx, None)
        if rules is not None:
            self._slots[req_idx] = rules
        return rules is not None

    def apply(self, logits: Tensor, ctx: Any = None) -> Tensor:
        """Mask the rows of the requests that have rules.

        Args:
            logits: [R, V], changed in place.
            ctx: the rows of this step (V2); None: V1.
        """
        rows = self._rows_v1(logits) if ctx is None else self._rows_v2(ctx)
        if rows is None or self._catalog is None:
            return logits
        places, ids, written, asked = rows
        masked = self._catalog.masks.masked(ids, written, logits[places], asked)
        logits[places] = masked.to(logits.dtype)
        return logits

    def _rows_v1(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor, list[RowRules]] | None:
        """The rows with rules, their last tokens, the tokens since their first SID, and the rules."""
        if self._catalog is None or not self._rows:
            return None
        rows = sorted(self._rows)
        tails = [self._catalog.masks.last_tokens(*self._rows[row][1:]) for row in rows]
        written = [self._rows[row][0].written + len(self._rows[row][2]) for row in rows]
        device = logits.device
        parts = [torch.tensor(part, device=device) for part in (rows, tails, written)]
        return parts[0], parts[1], parts[2], [self._rows[row][0] for row in rows]

    def _rows_v2(self, ctx: Any) -> tuple[Tensor, Tensor, Tensor, list[RowRules]] | None:
        """As `_rows_v1`, from the tokens on the device."""
        if self._catalog is None:
            return None
        # Without speculative decoding, rows are requests, whose slots are on the host.
        slots = ctx.idx_mapping_np.tolist()
        rows = [row for row, slot in enumerate(slots) if slot in self._slots]
        if not rows:
            return None
        size, device = self._catalog.masks.tail, ctx.pos.device
        places = torch.tensor(rows, device=device)
        slot, length = ctx.expanded_idx_mapping[places].long(), ctx.pos[places].long() + 1
        at = length[:, None] - size + torch.arange(size, device=device)
        tokens = self._states.all_token_ids.gpu[slot[:, None], at.clamp(min=0)].long()
        asked = [self._slots[slots[row]] for row in rows]
        before = torch.tensor([each.written for each in asked], device=device)
        written = length - self._states.prompt_len.gpu[slot].long() + before
        return places, torch.where(at < 0, -1, tokens), written, asked


def _writing(config: Any) -> Writing:
    from hedgerow.vllm.writing import Writing

    return Writing(config.tokenizer, getattr(config.hf_text_config, "eos_token_id", None))


def _given(params: Any) -> Any:
    """What a request asks. Over HTTP, `vllm_xargs` holds no objects, so it is their JSON there."""
    given = (getattr(params, "extra_args", None) or {}).get(KEY)
    return json.loads(given) if isinstance(given, str) else given


@functools.cache
def _rule_names() -> frozenset[str]:
    """The names of the sets."""
    from hedgerow.serve.rules import read_rules

    rules = read_settings().rules
    return frozenset() if rules is None else frozenset(read_rules(rules))
