"""Retriever: prompts to items, with a causal language model of transformers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from hedgerow._arguments import check_choice, positive_number, whole_number
from hedgerow.constraints.requests import BatchRules, Exclusions, Sets, batch_rules
from hedgerow.decode.beams import Beams
from hedgerow.decode.kernels.dispatch import KernelName
from hedgerow.decode.prepare import prepared
from hedgerow.decode.prepared import PreparedConstraints
from hedgerow.decode.search import init_beams
from hedgerow.errors import ArgumentError
from hedgerow.hf.explain import Explanation, explained
from hedgerow.hf.model import INF, CodeModel
from hedgerow.hf.plain import PlainDecoder
from hedgerow.hf.probe import find_masking, find_slicing
from hedgerow.hf.prompts import Ids, as_prompts, batches, checked
from hedgerow.hf.search import CROSSING, LONG, SHORT, ModelSearch, Normalize
from hedgerow.hf.searched import Searched, trie_of
from hedgerow.hf.tree import Masking, switches_at
from hedgerow.results import OrderBy, Picking, Results, results_of
from hedgerow.tokens import TokenMap

Decoding = Literal["auto", "tree", "plain"]
NORMALIZE = ("codes", "vocab", "allowed")
DECODING = ("auto", "tree", "plain")


class Retriever:
    """Retrieves the catalog items to which a causal language model gives the highest scores, for each prompt.

    The search is exact beam search over the catalog. It gives the beams of
    `model.generate(num_beams=M, prefix_allowed_tokens_fn=...)`, and with `normalize="vocab"` the same scores. Each
    prompt is computed once and its keys and values are stored once: at every level the M beams are M queries over
    them, separated by a mask.

    Args:
        model: a `...ForCausalLM` of transformers, on its device. It is put into evaluation mode.
        index: the index of the catalog; or a `Version` of a live index, whose removed items are then never returned;
            or a `LiveIndex`, of which the current version is used (make a new retriever for the next version).
        tokens: the tokens of each level's codes. Default: `TokenMap.detect(tokenizer)`. If SIDs are ragged, its end
            token ends a SID before the last level and is scored like a code.
        tokenizer: for prompts that are text. Not needed for token ids.
        normalize: the codes over which a code's probability is normalized. "codes": the codes of its level (the
            paper). "vocab": the whole vocabulary, as in `generate`. "allowed": the codes that the index allows there.
        temperature: divides the logits before they are normalized; a finite number above 0.
        decoding: "tree": beams as a tree over the prompt, as above. "plain": every beam's whole sequence at every
            level; slow, for any causal model. "auto": "tree" if a trial run on the model gives the logits of "plain",
            otherwise "plain" with a warning that states the reason.
        max_tokens: the maximum size of a batch in tokens, counting prompts, padding and beams. More prompts are split
            into several batches.
        kernel: as for `hedgerow.step`.
        cuda_graphs: on a CUDA device, capture the whole search in a graph for each size of batch, prompt and beams, if
            it has no constraints and no exclusions. Prompts are then padded to multiples of 64 tokens, and batches to
            powers of two.

    Attributes:
        model: the model that was given.
        index: the index that is searched.
        version: the version of a live index that is searched; None if the index is not live.
        device_index: the index on the model's device.
        tokens: the token map.
        tokenizer: the tokenizer, or None.

    Raises:
        ArgumentError: the model, tokens and index do not fit each other; or decoding="tree" and the model does not
            support it.

    Examples:
        ```python
        import hedgerow as hr
        from hedgerow.hf import Retriever
        from transformers import Qwen3Config, Qwen3ForCausalLM

        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
        config = Qwen3Config(vocab_size=32, num_hidden_layers=2, head_dim=16, **sizes)
        index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [2, 2]], codebook_sizes=4, item_ids=["a", "b", "c"]))
        tokens = hr.TokenMap.from_offsets([10, 14], codebook_sizes=4)
        retriever = Retriever(Qwen3ForCausalLM(config), index, tokens)
        results = retriever.retrieve([[1, 2, 3], [4, 5]], beam_width=3, k=2)
        assert [len(found) for found in results] == [2, 2]
        ```
    """

    def __init__(
        self,
        model: Any,
        index: Searched,
        tokens: TokenMap | None = None,
        *,
        tokenizer: Any = None,
        normalize: Normalize = "codes",
        temperature: float = 1.0,
        decoding: Decoding = "auto",
        max_tokens: int = 16_384,
        kernel: KernelName = "auto",
        cuda_graphs: bool = False,
    ) -> None:
        check_choice(normalize, "normalize", NORMALIZE)
        check_choice(decoding, "decoding", DECODING)
        temperature = positive_number(temperature, "temperature")
        self.max_tokens = whole_number(max_tokens, "max_tokens")
        trie, version = trie_of(index)
        if tokens is None and tokenizer is None:
            raise ArgumentError("pass the tokens of the codes (a TokenMap), or a tokenizer to detect them in.")
        if not hasattr(model, "config") or not hasattr(model, "base_model"):
            raise ArgumentError(f"expected a causal language model of transformers; got {type(model).__name__}.")
        if tokens is not None and not isinstance(tokens, TokenMap):
            raise ArgumentError(f"tokens must be a TokenMap; got {type(tokens).__name__}.")
        tokens = TokenMap.detect(tokenizer) if tokens is None else tokens
        self.model, self.index, self.version, self.tokens, self.tokenizer = model, trie, version, tokens, tokenizer
        code_model = CodeModel(model.eval(), tokens.of_index(trie))
        self.device_index = (version or trie).to("torch", code_model.device)
        with torch.inference_mode():
            code_model.slices_head = find_slicing(code_model)
            masking = self._find_masking(code_model, decoding)
        self._search = ModelSearch(code_model, trie, self.device_index, masking, normalize, temperature, kernel)
        self._captured: dict[tuple[int, int, int], Any] = {}
        self._cuda_graphs = self._may_capture(cuda_graphs)

    @property
    def normalize(self) -> Normalize:
        """The codes over which probabilities are normalized: "codes", "vocab" or "allowed"."""
        return self._search.normalize

    @property
    def temperature(self) -> float:
        """The number that divides the logits before they are normalized."""
        return self._search.temperature

    @property
    def decoding(self) -> str:
        """How beams are computed: "tree" or "plain"."""
        return "plain" if self._search.masking is None else "tree"

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
        """Retrieves the best items for each prompt: one `Results` per prompt, in the order of the prompts.

        Args:
            prompts: one or several prompts: text, chats (lists of messages), token ids, or the output of a tokenizer.
                The begin delimiter of the token map is appended to prompts that do not end with it.
            beam_width: M, the number of SIDs to follow for each prompt; at least k for k items.
            k: the maximum number of items per prompt. None: all items of the beams.
            constraints: one constraint set for all prompts, or for each prompt its set or None.
            exclude: for each prompt the ids of items to exclude, or None.
            order_by: as for `TrieIndex.results`.
            caps: as for `TrieIndex.results`.
            progress: called with the number of finished prompts and of all prompts, after each batch.

        Raises:
            ArgumentError: a prompt is empty, too long or not readable, or another argument is out of range.
            ConstraintError: the constraints or exclusions do not fit the prompts or the index.
        """
        picking = Picking(k, order_by, caps)
        # More beams than SIDs would be dead, and take memory.
        beam_width = min(whole_number(beam_width, "beam_width"), max(1, self.index.num_sids))
        ids = self.encode(prompts)
        rules = self._rules(len(ids), constraints, exclude)
        found: dict[int, Results] = {}
        for rows in self._batches(ids, beam_width):
            own = rules.take(rows)
            beams = self._beams([ids[row] for row in rows], beam_width, own)[-1]
            found |= zip(rows, results_of(self.index, beams, own, picking), strict=True)
            if progress is not None:
                progress(len(found), len(ids))
        return [found[row] for row in range(len(ids))]

    def encode(self, prompts: Any) -> list[Ids]:
        """Converts prompts to the token ids that the model reads, begin delimiter included. Errors as for `retrieve`."""
        longest = getattr(self._search.model.config, "max_position_embeddings", None)
        return checked(
            as_prompts(prompts, self.tokenizer),
            begin=self.tokens.begin,
            vocabulary_size=self._search.model.vocabulary_size,
            longest=None if longest is None else longest - self.index.num_levels + 1,
        )

    def trace(
        self, prompt: Any, *, beam_width: int = 50, constraints: Sets = None, exclude: Exclusions = None
    ) -> list[Beams]:
        """Runs the search of one prompt and returns the beams [1, M] after every level. Errors as for `retrieve`."""
        return self._beams([self._one(prompt)], beam_width, self._rules(1, constraints, exclude))

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
        """Explains why an item was or was not returned for a prompt: where its prefix left the beam, and by what score.

        Args:
            prompt: one prompt.
            item_id: the id of the item.
            beam_width: as for `retrieve`.
            k: as for `retrieve`.
            constraints: a constraint set, or a list of one.
            exclude: a list with one list of item ids.

        Raises:
            ArgumentError: as for `retrieve`.
            ConstraintError: as for `retrieve`.
        """
        rules = self._rules(1, constraints, exclude)
        removed = None if self.version is None else self.version.removed
        return explained(self._search, self._one(prompt), item_id, rules, removed, beam_width=beam_width, k=k)

    @torch.inference_mode()
    def free_search(self, prompts: Any, *, beam_width: int = 50) -> tuple[Tensor, Tensor]:
        """Runs an unconstrained beam search over the codes of each level, to compare with `retrieve`.

        Args:
            prompts: as for `retrieve`.
            beam_width: M.

        Returns:
            SIDs [B, M, L] int32 and their scores [B, M] float32, best first. A SID may match no item.
        """
        self.model.eval()
        return self._search.free(self.encode(prompts), whole_number(beam_width, "beam_width"))

    def logits_fn(self, prompts: Any, *, beam_width: int) -> Callable[[Beams], Tensor]:
        """Creates the function that computes the model's logits for beams, for a search loop of your own.

        Pass it to `hedgerow.beam_search` as it is, or call it between calls of `hedgerow.step` and change the logits.
        It must see the beams of each level in turn, starting with `init_beams`.

        Args:
            prompts: B prompts, as for `retrieve`.
            beam_width: M, the largest number of beams per prompt that the loop uses.

        Returns:
            A function that maps beams [B, m] before level l to logits [B, m, C] float32 of the codes of level l.

        Examples:
            ```python
            import hedgerow as hr
            from hedgerow.hf import Retriever
            from transformers import Qwen3Config, Qwen3ForCausalLM

            sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
            config = Qwen3Config(vocab_size=32, num_hidden_layers=2, head_dim=16, **sizes)
            index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [2, 2]], codebook_sizes=4))
            retriever = Retriever(Qwen3ForCausalLM(config), index, hr.TokenMap.from_offsets([10, 14], codebook_sizes=4))
            prompts = [[1, 2, 3], [4, 5]]
            logits_fn = retriever.logits_fn(prompts, beam_width=2)
            beams = hr.beam_search(retriever.device_index, logits_fn, batch_size=2, beam_width=2)
            own = [results.item_ids for results in index.results(beams)]
            assert own == [results.item_ids for results in retriever.retrieve(prompts, beam_width=2)]
            ```
        """
        self.model.eval()
        decoder = self._search.decoder(self.encode(prompts), whole_number(beam_width, "beam_width"))

        def logits(beams: Beams) -> Tensor:
            with torch.inference_mode():
                return self._search.logits_of(decoder(beams), beams.level)

        return logits

    @torch.inference_mode()
    def code_logits(self, prompts: Any, level: int) -> Tensor:
        """Computes the model's logits for the codes of one level after each prompt.

        Args:
            prompts: B prompts, as for `retrieve`. Append the tokens of the codes of the levels before `level`.
            level: 0 to L - 1.

        Returns:
            [B, C] float32.
        """
        level = whole_number(level, "level", 0, self.index.num_levels - 1)
        ids = self.encode(prompts)
        self.model.eval()
        features = PlainDecoder(self._search.model, ids)(init_beams(self.device_index, len(ids)))
        return self._search.logits_of(features, level)[:, 0]

    def _rules(self, prompts: int, constraints: Sets, exclude: Exclusions) -> BatchRules:
        restricted = constraints if self.version is None else self.version.restrict(constraints)
        return batch_rules(self.index, prompts, restricted, exclude)

    def _one(self, prompt: Any) -> Ids:
        ids = self.encode(prompt)
        if len(ids) != 1:
            raise ArgumentError(f"expected one prompt; got {len(ids)}.")
        return ids[0]

    def _batches(self, ids: list[Ids], beam_width: int) -> Sequence[list[int]]:
        beams, found = (self.index.num_levels - 1) * beam_width, []
        for side in (SHORT, CROSSING, LONG):
            rows = [row for row, prompt in enumerate(ids) if self._search.rope_of(prompt) == side]
            together = batches([ids[row] for row in rows], beams=beams, most_tokens=self.max_tokens)
            found += [[rows[place] for place in batch] for batch in together]
        return found

    @torch.inference_mode()
    def _beams(self, prompts: list[Ids], beam_width: int, rules: BatchRules) -> list[Beams]:
        """The beams after every level of a search."""
        # Training code may have put it back into training mode.
        self.model.eval()
        constraints: PreparedConstraints | None = prepared(self.device_index, rules)
        # Graphs are captured for searches without rules only.
        if not self._cuda_graphs or constraints is not None:
            decoder = self._search.decoder(prompts, beam_width)
            return self._search.run(decoder, len(prompts), beam_width, constraints)
        from hedgerow.hf.graphs import captured_search

        return captured_search(self._search, self._captured, prompts, beam_width)

    def _find_masking(self, model: CodeModel, decoding: Decoding) -> Masking | None:
        if decoding == "plain":
            return None
        try:
            return find_masking(model)
        except ArgumentError as error:
            name = type(self.model).__name__
            if decoding == "tree":
                raise ArgumentError(f"{name} does not support decoding='tree': {error} Use decoding='plain'.") from None
            warnings.warn(f"{name} is searched on the slow, plain path: {error}", stacklevel=3)
            return None

    def _may_capture(self, cuda_graphs: bool) -> bool:
        device = self._search.model.device
        if cuda_graphs and switches_at(self._search.model.config) < INF:
            raise ArgumentError("cuda_graphs does not support 'longrope', whose angles depend on the prompt's length.")
        if cuda_graphs and (device.type != "cuda" or self.decoding != "tree"):
            raise ArgumentError(
                f"cuda_graphs needs a model on a CUDA device and decoding 'tree'; this one is on {device}, "
                f"decoding {self.decoding!r}."
            )
        return cuda_graphs

    def __repr__(self) -> str:
        what = self.index if self.version is None else self.version
        name, search = type(self.model).__name__, self._search
        return (
            f"Retriever({name} on {search.model.device}, {what!r}, normalize={search.normalize!r}, "
            f"decoding={self.decoding!r})"
        )
