"""explain: why an item was returned for a prompt, or at which level its prefix left the beam."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from hedgerow._arguments import whole_number
from hedgerow.catalog.ragged import trimmed
from hedgerow.constraints.requests import BatchRules
from hedgerow.decode.beams import Beams
from hedgerow.decode.kernels.walk import allowed_children
from hedgerow.decode.ops import to_numpy
from hedgerow.decode.prepare import prepared
from hedgerow.decode.prepared import PreparedConstraints
from hedgerow.decode.search import init_beams
from hedgerow.decode.step import step
from hedgerow.hf.search import ModelSearch
from hedgerow.index.bits import bits_at
from hedgerow.index.lookup import leaves_of, row_of_id
from hedgerow.index.trie import Trie, codes_of_leaves
from hedgerow.results import Picking, results_of


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
    search: ModelSearch,
    prompt: list[int],
    item_id: Any,
    rules: BatchRules,
    removed: np.ndarray | None,
    *,
    beam_width: int,
    k: int,
) -> Explanation:
    """The explanation of an item for a prompt's token ids: see `Retriever.explain`.

    `removed`: bool [N], the items that were removed from a live index; None if the index is not live.
    """
    beam_width, k = whole_number(beam_width, "beam_width"), whole_number(k, "k")
    index, row = search.index, row_of_id(search.index, item_id)
    if row is None or (removed is not None and removed[row]):
        return Explanation(item_id, "not in the index", (), None, None, (), beam_width, k)
    leaf = leaves_of(index, np.asarray([row]))
    sid = tuple(trimmed(index.sids(leaf)[0].tolist()))
    if (why_not := _forbidden_by(rules, row)) is not None:
        return Explanation(item_id, why_not, sid, None, None, (), beam_width, k)
    constraints = prepared(search.device_index, rules)
    codes = codes_of_leaves(index, leaf)[0].tolist()
    nodes = path_of(index, codes)
    scores = _path_scores(search, prompt, codes, nodes, constraints)
    levels, beams = _levels(search, prompt, beam_width, codes, nodes, scores, constraints)
    found = results_of(index, beams, rules, Picking(None, None, None))[0]
    places = np.flatnonzero(found.rows == row)
    rank = int(places[0]) + 1 if places.size else None
    if rank is not None:
        return Explanation(item_id, "returned" if rank <= k else "beyond k", sid, rank, None, levels, beam_width, k)
    lost = (level for level, trace in enumerate(levels) if trace.rank is None or trace.rank > trace.kept)
    left = next(lost, len(codes) - 1)
    outcome = "cut" if np.isfinite(scores[left]) else "banned"
    return Explanation(item_id, outcome, sid, None, left, levels, beam_width, k)


def _forbidden_by(rules: BatchRules, row: int) -> str | None:
    """The outcome if the rules of the prompt forbid an item."""
    within = rules.set_of(0)
    if within is not None and not bits_at(within._words, np.asarray([row]))[0]:
        return "not in the set"
    return "excluded" if row in rules.excluded_by(0) else None


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
    sid: Sequence[int],
    nodes: list[int],
    constraints: PreparedConstraints | None,
) -> list[float]:
    """The score of each prefix of a SID, as a search with this one beam computes it."""
    decoder = search.decoder([prompt], 1)
    scores, total = [], 0.0
    for level in range(len(sid)):
        if level and sid[level - 1] == search.index.end_codes[level - 1]:
            # A SID that has ended keeps its score.
            scores.append(total)
            continue
        logits, normalize = search.scores_of(decoder(_forced(search, sid[:level])), level)
        row = logits[0, 0].double()
        if normalize is not None:
            over = row
            if normalize == "allowed":
                state = torch.tensor([[nodes[level - 1] if level else 0]], dtype=torch.int32, device=row.device)
                own = None if constraints is None else constraints.levels[level]
                device_index = search.device_index
                codes, valid = allowed_children(device_index._ops, device_index.levels[level], state, own)
                over = row[codes[0, 0][valid[0, 0]].unique().long()]
            row = row - over.logsumexp(0)
        total += float(row[sid[level]].nan_to_num(nan=-torch.inf, neginf=-torch.inf))
        scores.append(total)
    return scores


def _forced(search: ModelSearch, codes: Sequence[int]) -> Beams:
    device = search.model.device
    zeros = torch.zeros((1, 1), dtype=torch.int32, device=device)
    return Beams(
        torch.tensor([[codes]], dtype=torch.int32, device=device).reshape(1, 1, -1), zeros.float(), zeros, zeros
    )


def _levels(
    search: ModelSearch,
    prompt: list[int],
    beam_width: int,
    sid: Sequence[int],
    nodes: list[int],
    scores: list[float],
    constraints: PreparedConstraints | None,
) -> tuple[tuple[LevelTrace, ...], Beams]:
    """Runs the search and ranks every candidate of every level; returns the finished beams as well."""
    device_index = search.device_index
    decoder, beams, levels = search.decoder([prompt], beam_width), init_beams(device_index, 1), []
    for number, level in enumerate(search.index.levels):
        logits, normalize = search.scores_of(decoder(beams), number)
        candidates = beams.states.shape[1] * max(level.max_branch, 1)
        options: dict[str, Any] = {"normalize": normalize, "constraints": constraints}
        ranked = step(device_index, beams, logits, beam_width=candidates, kernel="array", **options)
        # The same step as in the search: it alone decides which of equal scores go on.
        beams = step(device_index, beams, logits, beam_width=beam_width, kernel=search.kernel, **options)
        kept, live = int(beams.num_valid[0]), int(ranked.num_valid[0])
        to_beat = float(beams.scores[0, kept - 1]) if kept else float("-inf")
        rank = _rank_of(beams, nodes[number])
        if rank is None and (rank_of_all := _rank_of(ranked, nodes[number])) is not None:
            rank = max(rank_of_all, kept + 1)
        levels.append(LevelTrace(int(sid[number]), scores[number], rank, live, kept, to_beat))
    return tuple(levels), beams


def _rank_of(beams: Beams, node: int) -> int | None:
    """The rank, from 1, of the beam at a node."""
    places = np.flatnonzero(to_numpy(beams.states)[0] == node)
    return int(places[0]) + 1 if places.size else None
