"""explain(): why an item was returned for a prompt, or at which level its prefix left the beam."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import hedgerow as hr
from hedgerow.decode.beams import Beams
from hedgerow.decode.constrain import listed_rows
from hedgerow.decode.constrained import Constraints
from hedgerow.decode.ops import to_numpy
from hedgerow.decode.step import is_count
from hedgerow.decode.walk import allowed_children
from hedgerow.errors import ArgumentError
from hedgerow.index.bits import bits_at
from hedgerow.ragged import trimmed

if TYPE_CHECKING:
    from hedgerow.hf.retriever import Retriever
    from hedgerow.hf.rules import Rules


@dataclass(frozen=True)
class LevelTrace:
    """What became of the item's prefix at one level.

    Attributes:
        code: the item's code at this level; the level's end code where its SID has ended.
        score: of the prefix that ends here.
        rank: its place among the candidates of this level, from 1; None where its own prefix had left before.
        candidates: how many there were.
        kept: how many went on, at most `beam_width`.
        to_beat: the score of the last that went on.
    """

    code: int
    score: float
    rank: int | None
    candidates: int
    kept: int
    to_beat: float


@dataclass(frozen=True)
class Explanation:
    """Why an item was returned for a prompt, or was not. As text, one sentence; `levels` has the figures.

    Attributes:
        item_id: what was asked about.
        outcome: "returned", "beyond k" (its SID was found, behind k others), "cut" (its prefix left the beam),
            "banned" (the model gives one of its codes no probability at all), "not in the set" (the constraint set
            leaves it out), "excluded" (it is among the ids not to be shown) or "not in the index".
        sid: its codes; none where it is not in the index.
        rank: its place among the items found, from 1; None where it was not found.
        level: where its prefix left the beam, counted from 0; None where it did not.
        levels: its way, level by level.
        beam_width: M of the search.
        k: items asked for.
    """

    item_id: Any
    outcome: str
    sid: tuple[int, ...]
    rank: int | None
    level: int | None
    levels: tuple[LevelTrace, ...]
    beam_width: int
    k: int

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, for JSON."""
        return asdict(self) | {"text": str(self)}

    def __str__(self) -> str:
        if self.outcome == "not in the index":
            return f"Item {self.item_id!r} is not in the index, so no prompt can return it."
        if self.outcome == "not in the set":
            return f"Item {self.item_id!r} is not in the constraint set, so no prompt that it binds can return it."
        if self.outcome == "excluded":
            return f"Item {self.item_id!r} is excluded, so it cannot be returned."
        named = f"Item {self.item_id!r}, SID {'-'.join(map(str, self.sid))},"
        if self.outcome == "returned":
            return f"{named} was returned at rank {self.rank}, with score {self.levels[-1].score:.3f}."
        if self.outcome == "beyond k":
            return f"{named} was found at rank {self.rank}, and {self.k} items were asked for."
        assert self.level is not None
        at = self.levels[self.level]
        if self.outcome == "banned":
            what = f"its code {at.code}" if self.level < len(self.sid) else "its end"
            return f"{named} was not returned: the model gives {what} at level {self.level} no probability."
        return (
            f"{named} left the beam at level {self.level}: its prefix scored {at.score:.3f}, at rank {at.rank:,} of "
            f"{at.candidates:,} candidates, and the {at.kept} that went on scored {at.to_beat:.3f} or more. "
            f"It takes a beam_width of at least {at.rank:,} at this level; deeper levels may need more."
        )


@torch.inference_mode()
def explained(
    retriever: Retriever, prompt: list[int], item_id: Any, rules: Rules, *, beam_width: int, k: int
) -> Explanation:
    """Returns the explanation of an item and a prompt's token ids: `Retriever.explain`."""
    for name, count in (("beam_width", beam_width), ("k", k)):
        if not is_count(count):
            raise ArgumentError(f"{name} must be a positive integer; got {count!r}.")
    row = row_of(retriever.index, item_id)
    if row is None or (retriever.version is not None and retriever.version.removed[row]):
        return Explanation(item_id, "not in the index", (), None, None, (), beam_width, k)
    leaf = leaf_of(retriever.index, row)
    sid = tuple(trimmed(retriever.index.sids([leaf])[0].tolist()))
    if (why_not := _left_out(rules, row)) is not None:
        return Explanation(item_id, why_not, sid, None, None, (), beam_width, k)
    prepared = retriever.prepared(rules)
    codes = retriever.index.codes_of([leaf])[0].tolist()
    nodes = path_of(retriever.index, codes)
    scores = _path_scores(retriever, prompt, codes, nodes, prepared)
    levels, beams = _levels(retriever, prompt, beam_width, codes, nodes, scores, prepared)
    found = retriever.index.items(beams, constraints=rules.constraints, exclude=rules.exclude)[0]
    at = np.flatnonzero(found.rows == row)
    rank = int(at[0]) + 1 if at.size else None
    left = next((level for level, trace in enumerate(levels) if trace.rank is None or trace.rank > trace.kept), None)
    if rank is not None:
        outcome, left = ("returned" if rank <= k else "beyond k"), None
    else:
        left = len(codes) - 1 if left is None else left
        outcome = "cut" if np.isfinite(scores[left]) else "banned"
    return Explanation(item_id, outcome, sid, rank, left, levels, beam_width, k)


def _left_out(rules: Rules, row: int) -> str | None:
    """Returns the outcome where the rules of the prompt leave an item out."""
    within = None if rules.constraints is None else rules.constraints[0]
    if within is not None and not bits_at(within.words, np.asarray([row]))[0]:
        return "not in the set"
    excluded = listed_rows(rules.index, 1, rules.exclude)
    return "excluded" if excluded is not None and row in excluded[0] else None


def row_of(index: hr.TrieIndex, item_id: Any) -> int | None:
    """Returns an item's row in the index; None where there is no such item."""
    from hedgerow.columns import rows_equal

    rows = rows_equal(index.item_ids, item_id)
    return rows[0] if rows else None


def leaf_of(index: hr.TrieIndex, row: int) -> int:
    """Returns the leaf whose items a row is among."""
    low, high = 0, index.num_sids - 1
    while low < high:
        middle = (low + high + 1) // 2
        first, _ = index.rows_of([middle])
        low, high = (middle, high) if first[0] <= row else (low, middle - 1)
    return low


def path_of(index: hr.TrieIndex, sid: Sequence[int]) -> list[int]:
    """Returns the node of each level on the way to a SID, end codes included."""
    state, nodes = np.zeros(1, np.int64), []
    for level, code in zip(index.levels, sid, strict=True):
        state = level.find(state, np.asarray([code]))
        nodes.append(int(state[0]))
    return nodes


def _path_scores(
    retriever: Retriever, prompt: list[int], sid: Sequence[int], nodes: list[int], prepared: Constraints | None
) -> list[float]:
    """Returns the score of each prefix of a SID, as a search with that one beam would give it."""
    decoder = retriever.decoder([prompt], 1)
    scores, total = [], 0.0
    for level in range(len(sid)):
        if level and sid[level - 1] == retriever.index.end_codes[level - 1]:
            # What has ended costs nothing more.
            scores.append(total)
            continue
        logits, normalize = retriever.scores_of(decoder(_forced(retriever, sid[:level])), level)
        row = logits[0, 0].double()
        if normalize is not None:
            over = row
            if normalize == "allowed":
                state = torch.tensor([[nodes[level - 1] if level else 0]], dtype=torch.int32, device=row.device)
                bound = None if prepared is None else prepared.levels[level]
                device_index = retriever.device_index
                codes, valid = allowed_children(device_index.ops, device_index.levels[level], state, bound)
                over = row[codes[0, 0][valid[0, 0]].unique().long()]
            row = row - over.logsumexp(0)
        total += float(row[sid[level]].nan_to_num(nan=-torch.inf, neginf=-torch.inf))
        scores.append(total)
    return scores


def _forced(retriever: Retriever, codes: Sequence[int]) -> Beams:
    device = retriever.model.device
    zeros = torch.zeros((1, 1), dtype=torch.int32, device=device)
    return Beams(
        torch.tensor([[codes]], dtype=torch.int32, device=device).reshape(1, 1, -1), zeros.float(), zeros, zeros
    )


def _levels(
    retriever: Retriever,
    prompt: list[int],
    beam_width: int,
    sid: Sequence[int],
    nodes: list[int],
    scores: list[float],
    prepared: Constraints | None,
) -> tuple[tuple[LevelTrace, ...], Beams]:
    """Searches, ranking every candidate of every level; returns the finished beams too."""
    index, device_index = retriever.index, retriever.device_index
    decoder, beams, levels = retriever.decoder([prompt], beam_width), hr.start(device_index, 1), []
    for at, level in enumerate(index.levels):
        logits, normalize = retriever.scores_of(decoder(beams), at)
        candidates = beams.states.shape[1] * max(level.max_branch, 1)
        options: dict[str, Any] = {"normalize": normalize, "constraints": prepared}
        ranked = hr.step(device_index, beams, logits, beam_width=candidates, backend="array", **options)
        # The step that the search itself takes: where scores are equal, it alone says who goes on.
        beams = hr.step(device_index, beams, logits, beam_width=beam_width, backend=retriever.backend, **options)
        kept, live = int(beams.n_valid[0]), int(ranked.n_valid[0])
        to_beat = float(beams.scores[0, kept - 1]) if kept else float("-inf")
        rank = _place(beams, nodes[at])
        if rank is None and (place := _place(ranked, nodes[at])) is not None:
            rank = max(place, kept + 1)
        levels.append(LevelTrace(int(sid[at]), scores[at], rank, live, kept, to_beat))
    return tuple(levels), beams


def _place(beams: Beams, node: int) -> int | None:
    """Returns which beam is at a node, counted from 1."""
    at = np.flatnonzero(to_numpy(beams.states)[0] == node)
    return int(at[0]) + 1 if at.size else None
