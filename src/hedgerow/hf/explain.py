"""explain: why an item was returned for a prompt, or at which level its prefix left the beam."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from hedgerow._arguments import whole_number
from hedgerow.catalog.ragged import trimmed
from hedgerow.constraints.requests import BatchRules
from hedgerow.constraints.sets import ConstraintSet
from hedgerow.constraints.sql_checks import columns_in
from hedgerow.decode.beams import Beams
from hedgerow.decode.kernels.walk import allowed_children
from hedgerow.decode.ops import to_numpy
from hedgerow.decode.prepare import prepared
from hedgerow.decode.prepared import PreparedConstraints
from hedgerow.decode.search import init_beams
from hedgerow.decode.step import step
from hedgerow.errors import ArgumentError
from hedgerow.hf.faults import Outcome, retried
from hedgerow.hf.search import ModelSearch
from hedgerow.index.bits import bits_at, packed
from hedgerow.index.lookup import checked_row_of_id, leaves_of
from hedgerow.index.trie import Trie, codes_of_leaves
from hedgerow.picking import Picking, cap_reasons
from hedgerow.results import Results, batch_results

# Why an item cannot be returned, whatever its scores are.
FORBIDDEN = {
    "not in the index": "is not in the index, so no prompt can return it.",
    "removed": "was removed from the live index, so no prompt can return it.",
    "not in the set": "is not in the constraint set, so this search cannot return it.",
    "not a candidate": "is not one of the candidates, so this search cannot return it.",
    "excluded": "is excluded, so it cannot be returned.",
}


@dataclass(frozen=True)
class LevelTrace:
    """The prefix of the item at one level of the search.

    Attributes:
        code: the item's code at this level; the level's end code if its SID has ended.
        score: the score of the prefix that ends with this code.
        rank: the rank of the prefix among the candidates of this level, from 1; None if its parent left the beam at an
            earlier level.
        candidates: the number of candidates.
        kept: the number of candidates that stayed in the beam, at most `beam_width`.
        to_beat: the score of the last candidate that stayed in the beam.
    """

    code: int
    score: float
    rank: int | None
    candidates: int
    kept: int
    to_beat: float


@dataclass(frozen=True)
class Explanation:
    """Why an item was or was not returned for a prompt. `str(explanation)` is a sentence; `levels` has the details.

    Attributes:
        item_id: the id of the item.
        outcome: "returned"; "beyond k" (its SID was found, behind k other items); "capped" (its SID was found, but
            better items with the same value of an attribute fill a cap); "cut" (its prefix left the beam); "banned"
            (the model gives one of its codes probability 0); "not in the set" (the constraint set does not contain
            it); "not a candidate" (there is a list of candidates without it); "excluded" (it is one of the excluded
            ids); "removed" (it was removed from the live index); or "not in the index".
        sid: its codes; empty if it is not in the index.
        rank: its rank among the items of the finished beams that caps leave, from 1; of a capped item, its rank without
            caps. None if it is not among them.
        level: the level at which its prefix left the beam, from 0; None if it did not.
        levels: one `LevelTrace` per level; empty if the item could not be returned for any prompt. The scores of the
            last level are without the end after the last code, and without the length penalty.
        beam_width: M of the search.
        k: the number of items to return.
        score: its score in the results; None if it is not among the finished beams.
        capped: the attribute, the value and the maximum number of the cap that removed the item; None if it was not
            capped.
        name: what the sentence calls the item, for example its title; None for its id alone.
        rules: the names of the constraint sets that do not contain the item, for "not in the set".
        attributes: the item's values of the attributes that these names mention, as "price" in "price < 20".

    Examples:
        ```python
        import hedgerow as hr
        from hedgerow.hf import Retriever
        from transformers import Qwen3Config, Qwen3ForCausalLM

        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
        model = Qwen3ForCausalLM(Qwen3Config(vocab_size=32, num_hidden_layers=2, head_dim=16, **sizes))
        index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [2, 2]], codebook_sizes=4, item_ids=["a", "b", "c"]))
        retriever = Retriever(model, index, hr.TokenMap.from_offsets([10, 14], codebook_sizes=4))

        explanation = retriever.explain([1, 2, 3], "c", beam_width=1, k=1)
        assert explanation.outcome in {"returned", "cut"}
        assert [level.candidates for level in explanation.levels][0] == 2
        ```
    """

    item_id: Any
    outcome: str
    sid: tuple[int, ...]
    rank: int | None
    level: int | None
    levels: tuple[LevelTrace, ...]
    beam_width: int
    k: int
    score: float | None = None
    capped: tuple[str, Any, int] | None = None
    name: str | None = None
    rules: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON: the attributes, and the sentence as "text".

        Examples:
            ```python
            from hedgerow.hf import Explanation

            explanation = Explanation("a", "excluded", (0, 1), None, None, (), beam_width=50, k=10)
            assert explanation.to_dict()["text"] == "Item 'a' is excluded, so it cannot be returned."
            ```
        """
        return asdict(self) | {"text": str(self)}

    def _text_of_rules(self, named: str) -> str:
        sets = ("set " if len(self.rules) == 1 else "sets ") + " and ".join(map(repr, self.rules))
        values = ", ".join(f"{name} {'null' if value is None else value}" for name, value in self.attributes.items())
        found = f" Its values: {values}." if values else ""
        return f"Item {named} is not in the constraint {sets}, so this search cannot return it.{found}"

    def __str__(self) -> str:
        named = repr(self.item_id) if self.name is None else f"{self.name!r}, id {self.item_id!r},"
        if self.outcome == "not in the set" and self.rules:
            return self._text_of_rules(named)
        if self.outcome in FORBIDDEN:
            return f"Item {named} {FORBIDDEN[self.outcome]}"
        item = f"Item {named.rstrip(',')}, SID {'-'.join(map(str, self.sid))},"
        if self.outcome == "returned":
            return f"{item} was returned at rank {self.rank}, with score {self.score:.3f}."
        if self.outcome == "beyond k":
            return f"{item} was found at rank {self.rank}, but k={self.k} items were requested."
        if self.capped is not None:
            name, value, most = self.capped
            others = "1 item" if most == 1 else f"{most} items"
            return (
                f"{item} was found at rank {self.rank}, but not returned: caps allow {others} with {name} {value!r}, "
                "and better items fill this cap."
            )
        assert self.level is not None
        if self.outcome == "banned":
            code = f"its code {self.sid[self.level]}" if self.level < len(self.sid) else "its end"
            return f"{item} was not returned: the model gives {code} at level {self.level} probability 0."
        trace = self.levels[self.level]
        return (
            f"{item} left the beam at level {self.level}: its prefix has score {trace.score:.3f} and rank "
            f"{trace.rank:,} of {trace.candidates:,} candidates; the {trace.kept} candidates that were kept have score "
            f"{trace.to_beat:.3f} or more. This level needs a beam_width of at least {trace.rank:,}; deeper levels may "
            "need more."
        )


@torch.inference_mode()
def explained(
    search: ModelSearch,
    prompt: list[int],
    item_id: Any,
    rules: BatchRules,
    removed: np.ndarray | None,
    *,
    beam_width: int,
    picking: Picking,
) -> Explanation:
    """Explain an item: see `Retriever.explain`.

    Args:
        search: the model, the index and the options.
        prompt: token ids.
        item_id: the id of the item.
        rules: the rules of the prompt, a batch of one.
        removed: bool [N], the removed items of a live index; None if the index is not live.
        beam_width: M.
        picking: the order and number of the items to return.

    Raises:
        ArgumentError: `item_id` is not one id of the type of the index's ids, `beam_width` or `k` is not a positive
            integer, or logits are NaN.
        ConstraintError: there is no such attribute.
    """
    _check_is_one_id(item_id)
    beam_width, k = whole_number(beam_width, "beam_width"), whole_number(picking.k, "k")
    index, row = search.index, checked_row_of_id(search.index, item_id, "item_id")
    if row is None:
        return Explanation(item_id, "not in the index", (), None, None, (), beam_width, k)
    leaf = leaves_of(index, np.asarray([row]))
    sid = tuple(trimmed(index.sids(leaf)[0].tolist()))
    outcome = "removed" if removed is not None and removed[row] else _forbidden_by(rules, row)
    if outcome is not None:
        found = Explanation(item_id, outcome, sid, None, None, (), beam_width, k)
        return _with_rules(found, rules, row) if outcome == "not in the set" else found
    rules = without_candidates(rules)
    constraints = prepared(search.device_index, rules)
    codes = codes_of_leaves(index, leaf)[0].tolist()
    nodes = path_of(index, codes)

    def attempt(search: ModelSearch) -> Outcome[tuple[list[float], tuple[LevelTrace, ...], Beams]]:
        scores, of_path = _path_scores(search, prompt, codes, nodes, constraints)
        levels, beams, of_beams, deviation = _levels(search, prompt, beam_width, codes, nodes, scores, constraints)
        return (scores, levels, beams), torch.stack([*of_path, *of_beams], dim=-1), deviation

    scores, levels, beams = retried(search, attempt, [0])
    found = _found(batch_results(index, beams, rules, replace(picking, k=None, caps=None))[0], index, row, picking)
    if found is not None:
        rank, score, capped = found
        outcome = "capped" if capped else "returned" if rank <= k else "beyond k"
        return Explanation(item_id, outcome, sid, rank, None, levels, beam_width, k, score, capped)
    lost = (number for number, trace in enumerate(levels) if trace.rank is None or trace.rank > trace.kept)
    # If no level lost it, the end after its last code has probability 0.
    level = next(lost, len(codes))
    outcome = "cut" if level < len(codes) and np.isfinite(scores[level]) else "banned"
    return Explanation(item_id, outcome, sid, None, level, levels, beam_width, k)


def _check_is_one_id(item_id: Any) -> None:
    if isinstance(item_id, Iterable) and not isinstance(item_id, str | bytes) and getattr(item_id, "ndim", 1):
        raise ArgumentError(
            f"item_id must be the id of one item; got {item_id!r}. If this is a SID, explain one of its items: "
            "start, stop = index.rows_of(index.find([sid])) are the first row of its items in index.item_ids and the "
            "row after the last."
        )


def _forbidden_by(rules: BatchRules, row: int) -> str | None:
    """The outcome if the rules of the prompt forbid an item, or None."""
    items = rules.set_of(0)
    if items is not None and not bits_at(items._words, np.asarray([row]))[0]:
        return "not in the set"
    candidates = rules.candidates_of(0)
    if candidates is not None and row not in candidates:
        return "not a candidate"
    return "excluded" if row in rules.excluded_by(0) else None


def _with_rules(explanation: Explanation, rules: BatchRules, row: int) -> Explanation:
    """The explanation of an item that is not in the constraint set, with the rules that exclude it."""
    items, attributes = rules.set_of(0), rules.index.attributes
    parts = () if items is None else items._parts
    names = tuple(part.name for part in parts if not bits_at(part._words, np.asarray([row]))[0])
    mentioned = dict.fromkeys(column for name in names for column in columns_in(name, attributes.column_names))
    values = {name: attributes.column(name)[row].as_py() for name in mentioned}
    return replace(explanation, rules=names, attributes=values)


def without_candidates(rules: BatchRules) -> BatchRules:
    """The same rules of a batch of one, with the candidates as a constraint set: a search gives the same items."""
    rows, items = rules.candidates_of(0), rules.set_of(0)
    if rows is None:
        return rules
    mask = np.zeros(rules.index.num_items, bool)
    mask[rows] = True
    candidates = ConstraintSet(rules.index, packed(mask), "candidates")
    return replace(rules, sets=(candidates if items is None else items & candidates,), candidates=None)


def _found(
    results: Results, index: Trie, row: int, picking: Picking
) -> tuple[int, float, tuple[str, Any, int] | None] | None:
    """The rank of an item, its score, and the cap that removed it or None; None if it is not among the results.

    Args:
        results: all items of the finished beams, in their order, without caps.
        index: the index.
        row: the row of the item.
        picking: the caps.
    """
    positions = np.flatnonzero(results.rows == row)
    if not positions.size:
        return None
    position, caps = int(positions[0]), picking.caps or {}
    reasons = list(cap_reasons(index, results.rows[: position + 1], caps))
    score, reason = float(results.scores[position]), reasons[-1]
    if reason is not None:
        return position + 1, score, (*reason, caps[reason[0]])
    return reasons.count(None), score, None


def path_of(index: Trie, codes: Sequence[int]) -> list[int]:
    """The node of each level on the path of a SID, given its codes with end codes."""
    state, nodes = np.zeros(1, np.int64), []
    for level, code in zip(index.levels, codes, strict=True):
        state = level.find(state, np.asarray([code]))
        nodes.append(int(state[0]))
    return nodes


def _path_scores(
    search: ModelSearch,
    prompt: list[int],
    codes: Sequence[int],
    nodes: list[int],
    constraints: PreparedConstraints | None,
) -> tuple[list[float], list[torch.Tensor]]:
    """The score of each prefix of a SID, as computed by a search with this one beam; and where logits are invalid."""
    decoder, written = search.decoder([prompt], 1), search.written([prompt])
    scores, invalid, total = [], [], 0.0
    for level, code in enumerate(codes):
        if level and codes[level - 1] == search.index.end_codes[level - 1]:
            # A SID that has ended keeps its score.
            scores.append(total)
            continue
        beam = _single_beam(search, codes[:level])
        found = search.scores_of(decoder(beam), beam, written)
        invalid.append(search.invalid(found.peak, beam))
        log_probs, normalize = found.values[0, 0].double(), found.normalize
        if normalize is not None:
            counted = log_probs
            if normalize == "allowed":
                counted = log_probs[_allowed(search, nodes[level - 1] if level else 0, level, constraints)]
            log_probs = log_probs - counted.logsumexp(0)
        total += float(log_probs[code].nan_to_num(nan=-torch.inf, neginf=-torch.inf))
        scores.append(total)
    return scores, invalid


def _allowed(search: ModelSearch, node: int, level: int, constraints: PreparedConstraints | None) -> torch.Tensor:
    """The codes that the index and the constraints allow after a node, without repetitions."""
    index = search.device_index
    state = torch.tensor([[node]], dtype=torch.int32, device=search.model.device)
    masks = None if constraints is None else constraints.levels[level]
    codes, valid = allowed_children(index._ops, index.levels[level], state, masks)
    return codes[0, 0][valid[0, 0]].unique().long()


def _single_beam(search: ModelSearch, codes: Sequence[int]) -> Beams:
    device = search.model.device
    zeros = torch.zeros((1, 1), dtype=torch.int32, device=device)
    return Beams(
        torch.tensor([[codes]], dtype=torch.int32, device=device).reshape(1, 1, -1), zeros.float(), zeros, zeros
    )


def _levels(
    search: ModelSearch,
    prompt: list[int],
    beam_width: int,
    codes: Sequence[int],
    nodes: list[int],
    scores: list[float],
    constraints: PreparedConstraints | None,
) -> tuple[tuple[LevelTrace, ...], Beams, list[torch.Tensor], torch.Tensor | None]:
    """Run the search and rank every candidate of every level.

    Returns:
        The traces; the finished beams, with their final scores; where logits are invalid; and the decoder's deviation.
    """
    device_index, written, invalid = search.device_index, search.written([prompt]), []
    decoder, beams, levels = search.decoder([prompt], beam_width), init_beams(device_index, 1), []
    for number, level in enumerate(search.index.levels):
        found = search.scores_of(decoder(beams), beams, written)
        invalid.append(search.invalid(found.peak, beams))
        candidates = beams.states.shape[1] * max(level.max_branch, 1)
        options: dict[str, Any] = {"normalize": found.normalize, "constraints": constraints}
        ranked = step(device_index, beams, found.values, beam_width=candidates, kernel="array", **options)
        # The same step as in the search: it decides which of several equal scores are kept.
        beams = step(device_index, beams, found.values, beam_width=beam_width, kernel=search.kernel, **options)
        kept, live = int(beams.num_valid[0]), int(ranked.num_valid[0])
        to_beat = float(beams.scores[0, kept - 1]) if kept else float("-inf")
        rank = _rank_of(beams, nodes[number])
        if rank is None and (rank_of_all := _rank_of(ranked, nodes[number])) is not None:
            rank = max(rank_of_all, kept + 1)
        levels.append(LevelTrace(int(codes[number]), scores[number], rank, live, kept, to_beat))
    beams, of_end = search.finish(decoder, beams, written)
    return tuple(levels), beams, [*invalid, *of_end], decoder.deviation


def _rank_of(beams: Beams, node: int) -> int | None:
    """The rank, from 1, of the beam at a node."""
    positions = np.flatnonzero(to_numpy(beams.states)[0] == node)
    return int(positions[0]) + 1 if positions.size else None
