"""Retriever: prompts → items, with a causal language model of transformers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

import hedgerow as hr
from hedgerow.decode.beams import Beams
from hedgerow.decode.constrain import Exclusions, Sets
from hedgerow.decode.constrained import Constraints
from hedgerow.decode.kernels import Backend
from hedgerow.decode.step import is_count
from hedgerow.errors import ArgumentError
from hedgerow.hf.explain import Explanation, explained
from hedgerow.hf.model import INF, CodeModel
from hedgerow.hf.plain import PlainDecoder
from hedgerow.hf.probe import find_masking, find_slicing
from hedgerow.hf.prompts import Ids, as_prompts, batches, checked, padded
from hedgerow.hf.rules import Rules, Searched, trie_of
from hedgerow.hf.tree import Masking, TreeDecoder, switches_at
from hedgerow.results import OrderBy, Picking, Results, results_of
from hedgerow.tokens import TokenMap

Normalize = Literal["codes", "vocab", "allowed"]
Decoding = Literal["auto", "tree", "plain"]
NORMALIZE = ("codes", "vocab", "allowed")
DECODING = ("auto", "tree", "plain")
# A model with "longrope" has one set of angles for short sequences and one for long ones. What a tree stores of a
# prompt has the angles that were right at the time, for its whole batch.
SHORT, CROSSING, LONG = range(3)


class Retriever:
    """Finds the items of a catalog that a causal language model names first, for each prompt.

    The search is exact beam search over the catalog, as `model.generate(num_beams=M, prefix_allowed_tokens_fn=...)`
    would run it, with the same scores where `normalize="vocab"`. A prompt is computed once and kept once: at each
    level, the M beams are M queries over it, told apart by a mask.

    Args:
        model: `...ForCausalLM` of transformers, on its device. Put into evaluation mode.
        index: the catalog's index. Or a version of a live one, whose removed items are then never found; of a
            `LiveIndex`, the version that is current now: make another retriever for the next.
        tokens: the tokens of each level's codes; left out, `TokenMap.detect(tokenizer)`. Where SIDs are ragged, its
            end token is what ends a SID before the last level, and is scored as a code is.
        tokenizer: for prompts that are text; not needed for token ids.
        normalize: what a code's probability is relative to. "codes": the codes of its level (the paper). "vocab": the
            whole vocabulary, as in `generate`. "allowed": the codes that the catalog allows there.
        decoding: "tree": beams as a tree over the prompt, as above. "plain": every beam's whole sequence at every
            level, slow, for any causal model. "auto": "tree" where a trial on the model gives the plain path's
            logits, else "plain", with a warning that says why.
        max_tokens: of a batch: prompts, padding and beams. More prompts than that go in several batches.
        backend: the kernel of `hr.step`.
        cuda_graphs: on a CUDA device, capture the whole search for each size of batch, prompt and beams in a graph,
            where it has no constraints and no exclusions.
            Prompts are then padded to multiples of 64 tokens, and batches to powers of two.

    Raises:
        ArgumentError: the model, tokens and index do not fit together; it says how. Or decoding="tree" and the model
            cannot.
    """

    def __init__(
        self,
        model: Any,
        index: Searched,
        tokens: TokenMap | None = None,
        *,
        tokenizer: Any = None,
        normalize: Normalize = "codes",
        decoding: Decoding = "auto",
        max_tokens: int = 16_384,
        backend: Backend = "auto",
        cuda_graphs: bool = False,
    ) -> None:
        _check_choice("normalize", normalize, NORMALIZE)
        _check_choice("decoding", decoding, DECODING)
        if not is_count(max_tokens):
            raise ArgumentError(f"max_tokens must be a positive integer; got {max_tokens!r}.")
        trie, version = trie_of(index)
        if tokens is None and tokenizer is None:
            raise ArgumentError("give the tokens of the codes (a TokenMap), or a tokenizer to detect them in.")
        if not hasattr(model, "config") or not hasattr(model, "base_model"):
            raise ArgumentError(f"expected a causal language model of transformers; got {type(model).__name__}.")
        if tokens is not None and not isinstance(tokens, TokenMap):
            raise ArgumentError(f"tokens must be a TokenMap; got {type(tokens).__name__}.")
        tokens = TokenMap.detect(tokenizer) if tokens is None else tokens
        coded = tokens.of_index(trie)
        self.index, self.version, self.tokens, self.tokenizer = trie, version, tokens, tokenizer
        self.normalize, self.max_tokens = normalize, int(max_tokens)
        self.backend: Backend = backend
        self.model = CodeModel(model.eval(), coded)
        self.device_index = (version or trie).to("torch", self.model.device)
        with torch.inference_mode():
            self.model.slices_head = find_slicing(self.model)
            self.masking = self._find_masking(decoding)
        self._captured: dict[tuple[int, int, int], Any] = {}
        self._cuda_graphs = self._may_capture(cuda_graphs)

    @property
    def decoding(self) -> str:
        """How beams are computed: "tree" or "plain"."""
        return "plain" if self.masking is None else "tree"

    def retrieve(
        self,
        prompts: Any,
        *,
        beam_width: int = 50,
        k: int | None = 10,
        constraints: Sets = None,
        exclude: Exclusions = None,
        order_by: OrderBy = None,
        caps: Mapping[str, int] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Results]:
        """Returns the best items for each prompt, one `Results` a prompt, in the order of the prompts.

        Args:
            prompts: one or several: text, chats (lists of messages), token ids, or a tokenizer's output. The begin
                delimiter of the token map is added where a prompt does not end with it.
            beam_width: M, the SIDs that are followed for each prompt; at least k for k items.
            k: items a prompt, at most; None for all that the beams name.
            constraints: one set of the index's items for all prompts, or for each its set or None.
            exclude: for each prompt the ids of items that it is not to be shown, or None.
            order_by: as for `TrieIndex.items`, and so are caps.
            caps: attribute -> items of one value, at most.
            progress: called with the prompts done and their number, after each batch.

        Raises:
            ArgumentError: a prompt is empty, too long or not readable, or another argument is out of range.
            ConstraintError: the sets or the exclusions do not fit the prompts or the index.
        """
        picking = Picking(k, order_by, caps)
        ids = self.encode(prompts)
        rules = self._rules(len(ids), constraints, exclude)
        found: list[Results | None] = [None] * len(ids)
        done = 0
        if is_count(beam_width):
            # More beams than there are SIDs would be dead, and take memory.
            beam_width = min(beam_width, max(1, self.index.num_sids))
        for rows in self._batches(ids, beam_width):
            own = rules.of(rows)
            beams = self._search([ids[row] for row in rows], beam_width, self.prepared(own))[-1]
            named = results_of(self.index, beams, own.constraints, own.exclude, picking)
            for row, results in zip(rows, named, strict=True):
                found[row] = results
            done += len(rows)
            if progress is not None:
                progress(done, len(ids))
        return [results for results in found if results is not None]

    def encode(self, prompts: Any) -> list[Ids]:
        """Returns the token ids that the model is given for each prompt, begin delimiter included. Errors as above."""
        longest = getattr(self.model.config, "max_position_embeddings", None)
        return checked(
            as_prompts(prompts, self.tokenizer),
            begin=self.tokens.begin,
            vocabulary_size=self.model.vocabulary_size,
            longest=None if longest is None else longest - self.index.num_levels + 1,
        )

    def trace(
        self, prompt: Any, *, beam_width: int = 50, constraints: Sets = None, exclude: Exclusions = None
    ) -> list[Beams]:
        """Returns the beams [1, M] of every level of one prompt's search, the finished ones last. Errors as above."""
        rules = self._rules(1, constraints, exclude)
        return self._search([self._one(prompt)], beam_width, self.prepared(rules))

    def explain(
        self,
        prompt: Any,
        item_id: Any,
        *,
        beam_width: int = 50,
        k: int = 10,
        constraints: Sets = None,
        exclude: Exclusions = None,
    ) -> Explanation:
        """Says why an item was returned for a prompt, or was not: where its prefix left the beam, and to what score.

        `constraints` is a set, or a list of one; `exclude` a list of one list of item ids.

        Raises:
            ArgumentError: as for `retrieve`.
            ConstraintError: as for `retrieve`.
        """
        rules = self._rules(1, constraints, exclude)
        return explained(self, self._one(prompt), item_id, rules, beam_width=beam_width, k=k)

    def prepared(self, rules: Rules) -> Constraints | None:
        """Returns the rules of a batch, ready for the steps of its search."""
        return hr.constrain(self.device_index, rules.batch_size, constraints=rules.constraints, exclude=rules.exclude)

    def decoder(self, prompts: list[Ids], beam_width: int) -> Callable[[Beams], Tensor]:
        """Returns what gives the features of every beam, for searches of one's own with the model."""
        if self.masking is None or {self._rope_of(prompt) for prompt in prompts} not in ({SHORT}, {LONG}):
            return PlainDecoder(self.model, prompts)
        return TreeDecoder(self.model, self.masking, *padded(prompts, self.model.device), beam_width)

    def scores_of(self, features: Tensor, level: int) -> tuple[Tensor, Any]:
        """Returns logits or log-probabilities [B, m, C] over the index's codes, and `normalize` for `hr.step`."""
        size = self.index.codebook_sizes[level]
        if self.normalize == "vocab":
            return _sized(self.model.code_log_probs(features, level), size), None
        logits = self.model.code_logits(features, level)
        if self.normalize == "codes" and logits.shape[-1] > size:
            # The model has more codes than the catalog; they count, though none can be chosen.
            return logits.log_softmax(-1)[..., :size], None
        return _sized(logits, size), self.normalize

    def _rules(self, prompts: int, constraints: Sets, exclude: Exclusions) -> Rules:
        left = constraints if self.version is None else self.version.within(constraints)
        return Rules(self.index, prompts, left, exclude)

    def _one(self, prompt: Any) -> Ids:
        ids = self.encode(prompt)
        if len(ids) != 1:
            raise ArgumentError(f"expected one prompt; got {len(ids)}.")
        return ids[0]

    def _batches(self, ids: list[Ids], beam_width: int) -> Sequence[list[int]]:
        if not is_count(beam_width):
            raise ArgumentError(f"beam_width must be a positive integer; got {beam_width!r}.")
        beams, found = (self.index.num_levels - 1) * beam_width, []
        for kind in (SHORT, CROSSING, LONG):
            rows = [row for row, prompt in enumerate(ids) if self._rope_of(prompt) == kind]
            together = batches([ids[row] for row in rows], beams=beams, most_tokens=self.max_tokens)
            found += [[rows[at] for at in batch] for batch in together]
        return found

    def _rope_of(self, prompt: Ids) -> int:
        """Returns on which side of the length where a model's angles switch all of a search is, or CROSSING."""
        switch = switches_at(self.model.config)
        return int(len(prompt) > switch) + int(len(prompt) + self.index.num_levels - 1 > switch)

    @torch.inference_mode()
    def _search(self, prompts: list[Ids], beam_width: int, constraints: Constraints | None) -> list[Beams]:
        # Whoever trains it may have put it back.
        self.model.model.eval()
        # A graph is captured for searches without rules; a search with rules is launched as it is.
        if not self._cuda_graphs or constraints is not None:
            return self._loop(self.decoder(prompts, beam_width), len(prompts), beam_width, constraints)
        from hedgerow.hf.graphs import captured_search

        return captured_search(self, self._captured, prompts, beam_width)

    def _loop(
        self,
        decoder: Callable[[Beams], Tensor],
        batch_size: int,
        beam_width: int,
        constraints: Constraints | None = None,
    ) -> list[Beams]:
        """Runs a search, and returns the beams of every level. Nothing in it waits for the device."""
        beams, history = hr.start(self.device_index, batch_size), []
        for level in range(self.index.num_levels):
            logits, normalize = self.scores_of(decoder(beams), level)
            beams = hr.step(
                self.device_index,
                beams,
                logits,
                beam_width=beam_width,
                normalize=normalize,
                backend=self.backend,
                constraints=constraints,
            )
            history.append(beams)
        return history

    def _find_masking(self, decoding: Decoding) -> Masking | None:
        if decoding == "plain":
            return None
        try:
            return find_masking(self.model)
        except ArgumentError as error:
            name = type(self.model.model).__name__
            if decoding == "tree":
                raise ArgumentError(f"{name} cannot be searched as a tree: {error} Use decoding='plain'.") from None
            warnings.warn(f"{name} is searched on the slow, plain path: {error}", stacklevel=3)
            return None

    def _may_capture(self, wanted: bool) -> bool:
        if wanted and switches_at(self.model.config) < INF:
            raise ArgumentError("cuda_graphs cannot hold a model with 'longrope', whose angles depend on the prompt.")
        if wanted and (self.model.device.type != "cuda" or self.masking is None):
            raise ArgumentError(
                f"cuda_graphs needs a model on a CUDA device and decoding 'tree'; this one is on {self.model.device}, "
                f"decoding {self.decoding!r}."
            )
        return wanted

    def __repr__(self) -> str:
        what = self.index if self.version is None else self.version
        name, device = type(self.model.model).__name__, self.model.device
        return f"Retriever({name} on {device}, {what!r}, normalize={self.normalize!r}, decoding={self.decoding!r})"


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ArgumentError(f"{name} must be one of {', '.join(choices)}; got {value!r}.")


def _sized(logits: Tensor, size: int) -> Tensor:
    """Returns logits over `size` codes: those that only the model has are cut, those that it lacks cannot be chosen."""
    missing = size - logits.shape[-1]
    return torch.nn.functional.pad(logits, (0, missing), value=-INF) if missing > 0 else logits[..., :size]
