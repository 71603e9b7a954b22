"""Inspection: what a `Retriever` shows of its searches, beside the items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from hedgerow._arguments import whole_number
from hedgerow.constraints.requests import Candidates, Exclusions, Sets
from hedgerow.decode.beams import Beams
from hedgerow.hf.explain import Explanation, explained, without_candidates
from hedgerow.hf.logits_fn import LogitsFn, logits_after
from hedgerow.hf.searcher import Searcher
from hedgerow.picking import OrderBy, Picking


class Inspection:
    """The base of `Retriever`: its searches, and what they show beside the items."""

    max_tokens: int
    _searcher: Searcher

    def trace(
        self,
        prompt: Any,
        *,
        beam_width: int = 50,
        constraints: Sets = None,
        exclude: Exclusions = None,
        candidates: Candidates = None,
    ) -> list[Beams]:
        """Run the search of one prompt and return the beams [1, M] after every level.

        Args:
            prompt: one prompt, as for `retrieve`.
            beam_width: as for `retrieve`.
            constraints: a constraint set, or a list of one.
            exclude: item ids, or a list with one list of them.
            candidates: item ids, or a list with one list of them.

        Raises:
            ArgumentError: as for `retrieve`, or there are several prompts.
            ConstraintError: as for `retrieve`.

        Examples:
            ```python
            import hedgerow as hr
            from hedgerow.demo.films import load_catalog, load_retriever

            retriever = load_retriever(hr.build_index(load_catalog()))
            history = retriever.trace("Recommend me a western", beam_width=5)
            assert [beams.level for beams in history] == [1, 2, 3, 4]
            ```
        """
        searcher = self._searcher
        rules = without_candidates(searcher.rules(1, constraints, exclude, candidates))
        return searcher.beams([searcher.encode_one(prompt)], beam_width, rules, [0])

    def explain(
        self,
        prompt: Any,
        item_id: Any,
        *,
        beam_width: int = 50,
        k: int = 10,
        constraints: Sets = None,
        exclude: Exclusions = None,
        candidates: Candidates = None,
        order_by: OrderBy = None,
        caps: Mapping[str, int] | None = None,
    ) -> Explanation:
        """Explain why an item was or was not returned for a prompt: where its prefix left the beam, and at what score.

        Args:
            prompt: one prompt, as for `retrieve`.
            item_id: the id of the item, not its SID.
            beam_width: as for `retrieve`.
            k: as for `retrieve`; not None.
            constraints: a constraint set, or a list of one.
            exclude: item ids, or a list with one list of them.
            candidates: item ids, or a list with one list of them.
            order_by: as for `retrieve`.
            caps: as for `retrieve`.

        Raises:
            ArgumentError: as for `retrieve`; there are several prompts; or `item_id` is not of the type of the index's
                ids. An id of that type that no item has is an outcome.
            ConstraintError: as for `retrieve`.

        Examples:
            ```python
            import hedgerow as hr
            from hedgerow.demo.films import load_catalog, load_retriever

            retriever = load_retriever(hr.build_index(load_catalog()))
            (results,) = retriever.retrieve("Recommend me a western")
            explanation = retriever.explain("Recommend me a western", results.item_ids[1])
            assert (explanation.outcome, explanation.rank) == ("returned", 2)
            ```
        """
        searcher = self._searcher
        picking = Picking(whole_number(k, "k"), order_by, caps)
        picking.check_attributes(searcher.index)
        rules, prompt_ids = searcher.rules(1, constraints, exclude, candidates), searcher.encode_one(prompt)
        removed = None if searcher.version is None else searcher.version.removed
        return explained(searcher.search, prompt_ids, item_id, rules, removed, beam_width=beam_width, picking=picking)

    # Not torch.inference_mode, here and below: callers may change the tensors in place.
    @torch.no_grad()
    def free_search(self, prompts: Any, *, beam_width: int = 50) -> tuple[Tensor, Tensor]:
        """Run an unconstrained beam search over all codes of each level, to compare with `retrieve`.

        Scores are normalized as for `retrieve`, with `temperature` and `normalize`; "allowed" equals "codes" here.

        Args:
            prompts: B prompts, as for `retrieve`.
            beam_width: M.

        Returns:
            SIDs [B, M, L] int32 and their scores [B, M] float32, best first, on the model's device. A SID may match no
                item. A ragged SID has -1 after its end. If there are fewer than M combinations of codes, the last
                scores are -inf.

        Raises:
            ArgumentError: as for `retrieve`.

        Examples:
            ```python
            import hedgerow as hr
            from hedgerow.demo.films import load_catalog, load_retriever

            index = hr.build_index(load_catalog())
            retriever = load_retriever(index)
            sids, scores = retriever.free_search("Recommend me a western", beam_width=50)
            assert sids.shape == (1, 50, 4)
            assert not index.contains(sids[0].numpy()).all()
            ```
        """
        searcher = self._searcher
        beam_width, ids = whole_number(beam_width, "beam_width"), searcher.encode(prompts)
        device = searcher.search.model.device
        sids = torch.empty((len(ids), beam_width, searcher.index.num_levels), dtype=torch.int32, device=device)
        scores = torch.empty((len(ids), beam_width), device=device)
        for rows in searcher.search.batches(ids, beam_width, self.max_tokens):
            sids[rows], scores[rows] = searcher.free([ids[row] for row in rows], beam_width, rows)
        return sids, scores

    def logits_fn(self, prompts: Any, *, beam_width: int) -> Callable[[Beams], Tensor]:
        """Create the function that computes the model's logits for beams, for a search loop of your own.

        Pass it to `hedgerow.beam_search` as it is, or call it between calls of `hedgerow.step` and change the logits.
        It must get the beams of each level in turn. The beams of `init_beams` start a new search.

        The logits are neither divided by the temperature nor normalized: pass `temperature` and `normalize` to
        `hedgerow.step`. They cover the codes of the index; if the model has more codes, `retrieve` with
        `normalize="codes"` counts these as well. NaN bans a code, and is an error in `retrieve` only. The length
        penalty, and the end that `retrieve` with `normalize="vocab"` scores after the longest ragged SIDs, are left
        to you.

        All prompts form one batch; `max_tokens` does not apply.

        Args:
            prompts: B prompts, as for `retrieve`.
            beam_width: M, the number of beams per prompt after level 0.

        Returns:
            A function that maps beams [B, m] before level l to logits [B, m, C] float32 of the codes of level l; -inf
                for codes without a token. m is 1 before level 0 and M after it.

        Raises:
            ArgumentError: as for `retrieve`.

        Examples:
            ```python
            import hedgerow as hr
            from hedgerow.demo.films import load_catalog, load_retriever

            index = hr.build_index(load_catalog())
            retriever = load_retriever(index)
            logits_fn = retriever.logits_fn("Recommend me a western", beam_width=20)
            beams = hr.beam_search(retriever.device_index, logits_fn, batch_size=1, beam_width=20)
            (results,) = retriever.retrieve("Recommend me a western", beam_width=20, k=3)
            assert index.results(beams, k=3)[0].item_ids == results.item_ids
            ```
        """
        searcher = self._searcher
        return LogitsFn(searcher.search, searcher.encode(prompts), whole_number(beam_width, "beam_width"))

    @torch.no_grad()
    def code_logits(self, prompts: Any, level: int) -> Tensor:
        """Compute the model's logits for the codes of one level after each prompt, before the temperature.

        Args:
            prompts: B prompts, as for `retrieve`, each followed by the tokens of the codes of the levels before
                `level`. The begin delimiter goes before these tokens.
            level: 0 to L - 1.

        Returns:
            [B, C] float32, on the model's device; -inf for codes without a token.

        Raises:
            ArgumentError: as for `retrieve`, or a prompt has too few tokens.

        Examples:
            ```python
            import hedgerow as hr
            from hedgerow.demo.films import load_catalog, load_retriever

            retriever = load_retriever(hr.build_index(load_catalog()))
            prompts = ["Recommend me a western", "A French comedy"]
            assert retriever.code_logits(prompts, level=0).shape == (2, 256)
            (ids,) = retriever.encode("Recommend me a western")
            code = int(retriever.tokens.token_ids[0][7])
            assert retriever.code_logits([[*ids, code]], level=1).shape == (1, 256)
            ```
        """
        searcher = self._searcher
        level = whole_number(level, "level", 0, searcher.index.num_levels - 1)
        ids = searcher.encode(prompts, num_codes=level)
        if not ids:
            return torch.empty((0, searcher.index.codebook_sizes[level]), device=searcher.search.model.device)
        return logits_after(searcher.search, ids, level)
