"""Retriever: prompts to items, with a causal language model of transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hedgerow._arguments import check_choice, whole_number
from hedgerow.constraints.requests import BatchRules, Exclusions, Sets, batch_rules
from hedgerow.decode.beams import Beams
from hedgerow.decode.kernels.dispatch import KernelName
from hedgerow.decode.prepare import prepared
from hedgerow.decode.search import init_beams
from hedgerow.decode.step import tempered
from hedgerow.errors import ArgumentError
from hedgerow.hf.explain import Explanation, explained
from hedgerow.hf.graphs import Captured, Size, captured_search, check_capture
from hedgerow.hf.model import CodeModel
from hedgerow.hf.plain import PlainDecoder
from hedgerow.hf.probe import DECODING, Decoding, choose_masking, probe_head
from hedgerow.hf.prompts import Ids, as_prompts, checked
from hedgerow.hf.search import NORMALIZE, LogitsFn, ModelSearch, Normalize
from hedgerow.hf.searched import Searched, check_token_map, trie_of
from hedgerow.results import OrderBy, Picking, Results, results_of
from hedgerow.tokens import TokenMap


class Retriever:
    """Retrieves the catalog items to which a causal language model gives the highest scores, for each prompt.

    The search is exact beam search over the catalog. It gives the beams of
    `model.generate(num_beams=M, prefix_allowed_tokens_fn=...)`, and with `normalize="vocab"` the same scores. Each
    prompt is computed once, and its keys and values are stored once: at each level the M beams are M queries over
    them, separated by a mask.

    Args:
        model: a `...ForCausalLM` of transformers, on its device. It is put into evaluation mode.
        index: the index of the catalog; or a `Version` of a live index, whose removed items are then never returned;
            or a `LiveIndex`, of which the current version is used. For the next version, create a new retriever.
        tokens: the tokens of each level's codes. Default: `TokenMap.detect(tokenizer)`. If SIDs are ragged, its end
            token ends a SID before the last level and is scored like a code.
        tokenizer: the tokenizer for text and chats. Not needed for token ids.
        normalize: the codes over which a code's probability is normalized. "codes": the codes of its level (the
            paper). "vocab": the whole vocabulary, as in `generate`. "allowed": the codes that the index and the
            constraints allow after the prefix.
        temperature: divides the logits before they are normalized; a number from 1e-8 to 1e8.
        decoding: "tree": beams as a tree over the prompt, as above. "plain": every beam's whole sequence at every
            level; slow, for any causal model. "auto": "tree" if a trial run on the model gives the logits of "plain",
            otherwise "plain" with a warning that states the reason.
        max_tokens: the maximum size of a batch in tokens, counting prompts, padding and beams. More prompts are split
            into several batches.
        kernel: as for `hedgerow.step`.
        cuda_graphs: on a CUDA device, capture the whole search in a graph for each size of batch, prompt and beams, if
            it has no constraints and no exclusions. Prompts are then padded to multiples of 64 tokens, and batches to
            powers of two. A graph reads the weights where they were when it was captured: if parameters are replaced,
            create a new retriever.

    Attributes:
        model: the model, as given.
        index: the index that is searched.
        version: the version of a live index that is searched; None if the index is not live.
        device_index: the index on the model's device.
        tokens: the token map.
        tokenizer: the tokenizer, or None.
        max_tokens: the maximum size of a batch in tokens.

    Raises:
        ArgumentError: the model, tokens and index do not fit each other; decoding is "tree" and the model does not
            support it; or another argument is out of range.

    Examples:
        ```python
        import hedgerow as hr
        from hedgerow.hf import Retriever
        from transformers import Qwen3Config, Qwen3ForCausalLM

        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
        model = Qwen3ForCausalLM(Qwen3Config(vocab_size=32, num_hidden_layers=2, head_dim=16, **sizes))
        index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [2, 2]], codebook_sizes=4, item_ids=["a", "b", "c"]))
        retriever = Retriever(model, index, hr.TokenMap.from_offsets([10, 14], codebook_sizes=4))

        results = retriever.retrieve([[1, 2, 3], [4, 5]], beam_width=3, k=2)
        assert [len(items) for items in results] == [2, 2]
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
        self.max_tokens = whole_number(max_tokens, "max_tokens")
        trie, version = trie_of(index)
        if tokens is None and tokenizer is None:
            raise ArgumentError("pass the tokens of the codes (a TokenMap), or a tokenizer to detect them in.")
        if not hasattr(model, "config") or not hasattr(model, "base_model"):
            advice = " Load it with AutoModelForCausalLM.from_pretrained(...)." if isinstance(model, str | Path) else ""
            given = type(model).__name__
            raise ArgumentError(f"model must be a ...ForCausalLM of transformers; got {given}.{advice}")
        tokens = TokenMap.detect(tokenizer) if tokens is None else tokens
        check_token_map(tokens)
        self.model, self.index, self.version, self.tokens, self.tokenizer = model, trie, version, tokens, tokenizer
        code_model = CodeModel(model.eval(), tokens.of_index(trie))
        self.device_index = (version or trie).to("torch", code_model.device)
        # Check the temperature before the trial runs.
        tempered(self.device_index, torch.zeros(0), temperature, "codes")
        with torch.inference_mode():
            probe_head(code_model)
            masking = choose_masking(code_model, decoding)
        self._search = ModelSearch(code_model, trie, self.device_index, masking, normalize, float(temperature), kernel)
        self._captured: dict[Size, Captured] = {}
        self._cuda_graphs = cuda_graphs
        if cuda_graphs:
            check_capture(self._search)

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
        """The way beams are computed: "tree" or "plain"."""
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
        """Retrieve the best items for each prompt: one `Results` per prompt, in the order of the prompts.

        Args:
            prompts: one or several prompts: text, chats (lists of messages), token ids, or the output of a tokenizer.
                The begin delimiter of the token map is appended to prompts that do not end with it.
            beam_width: M, the number of SIDs to follow for each prompt; at least k for k items.
            k: the maximum number of items per prompt. None: all items of the beams.
            constraints: one constraint set for all prompts, or for each prompt its set or None.
            exclude: for each prompt the ids of items to exclude, or None.
            order_by: as for `TrieIndex.results`.
            caps: as for `TrieIndex.results`.
            progress: called with the number of finished prompts and the number of all prompts, after each batch.

        Raises:
            ArgumentError: a prompt is empty, too long or not readable, or another argument is out of range.
            ConstraintError: the constraints or exclusions do not fit the prompts or the index.

        Examples:
            ```python
            import hedgerow as hr
            from hedgerow.demo.films import load_catalog, load_retriever

            index = hr.build_index(load_catalog())
            retriever = load_retriever(index)
            first, second = retriever.retrieve(["Recommend me a western", "A French comedy"], k=3)
            assert len(first) == 3
            (others,) = retriever.retrieve("Recommend me a western", k=3, exclude=[first.item_ids])
            assert not set(others.item_ids) & set(first.item_ids)
            ```
        """
        picking = Picking(k, order_by, caps)
        # More beams than SIDs would be dead, and take memory.
        beam_width = min(whole_number(beam_width, "beam_width"), max(1, self.index.num_sids))
        ids = self.encode(prompts)
        rules = self._rules(len(ids), constraints, exclude)
        results: dict[int, Results] = {}
        for rows in self._search.batches(ids, beam_width, self.max_tokens):
            batch = rules.take(rows)
            beams = self._beams([ids[row] for row in rows], beam_width, batch)[-1]
            results |= zip(rows, results_of(self.index, beams, batch, picking), strict=True)
            if progress is not None:
                progress(len(results), len(ids))
        return [results[row] for row in range(len(ids))]

    def encode(self, prompts: Any) -> list[Ids]:
        """Convert prompts to the token ids that the model reads, begin delimiter included.

        Args:
            prompts: as for `retrieve`.

        Raises:
            ArgumentError: a prompt is empty, too long or not readable.

        Examples:
            ```python
            import hedgerow as hr
            from hedgerow.demo.films import load_catalog, load_retriever

            retriever = load_retriever(hr.build_index(load_catalog()))
            (ids,) = retriever.encode("Recommend me a western")
            assert retriever.retrieve(ids)[0].item_ids == retriever.retrieve("Recommend me a western")[0].item_ids
            ```
        """
        return self._encode(prompts)

    def trace(
        self, prompt: Any, *, beam_width: int = 50, constraints: Sets = None, exclude: Exclusions = None
    ) -> list[Beams]:
        """Run the search of one prompt and returns the beams [1, M] after every level.

        Args:
            prompt: one prompt, as for `retrieve`.
            beam_width: as for `retrieve`.
            constraints: a constraint set, or a list of one.
            exclude: a list with one list of item ids.

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
        return self._beams([self._encode_one(prompt)], beam_width, self._rules(1, constraints, exclude))

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
        """Explain why an item was or was not returned for a prompt: where its prefix left the beam, and at what score.

        Args:
            prompt: one prompt, as for `retrieve`.
            item_id: the id of the item, not its SID.
            beam_width: as for `retrieve`.
            k: as for `retrieve`; not None.
            constraints: a constraint set, or a list of one.
            exclude: a list with one list of item ids.

        Raises:
            ArgumentError: as for `retrieve`, or there are several prompts.
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
        rules = self._rules(1, constraints, exclude)
        removed = None if self.version is None else self.version.removed
        prompt_ids = self._encode_one(prompt)
        return explained(self._search, prompt_ids, item_id, rules, removed, beam_width=beam_width, k=k)

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
        beam_width, ids = whole_number(beam_width, "beam_width"), self.encode(prompts)
        device = self._search.model.device
        sids = torch.empty((len(ids), beam_width, self.index.num_levels), dtype=torch.int32, device=device)
        scores = torch.empty((len(ids), beam_width), device=device)
        for rows in self._search.batches(ids, beam_width, self.max_tokens):
            sids[rows], scores[rows] = self._search.free([ids[row] for row in rows], beam_width)
        return sids, scores

    def logits_fn(self, prompts: Any, *, beam_width: int) -> Callable[[Beams], Tensor]:
        """Create the function that computes the model's logits for beams, for a search loop of your own.

        Pass it to `hedgerow.beam_search` as it is, or call it between calls of `hedgerow.step` and change the logits.
        It must get the beams of each level in turn. The beams of `init_beams` start a new search.

        The logits are neither divided by the temperature nor normalized: pass `temperature` and `normalize` to
        `hedgerow.step`. They cover the codes of the index; if the model has more codes, `retrieve` with
        `normalize="codes"` counts these as well.

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
        return LogitsFn(self._search, self.encode(prompts), whole_number(beam_width, "beam_width"))

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
        level = whole_number(level, "level", 0, self.index.num_levels - 1)
        ids = self._encode(prompts, num_codes=level)
        self.model.eval()
        probe_head(self._search.model)
        if not ids:
            return torch.empty((0, self.index.codebook_sizes[level]), device=self._search.model.device)
        features = PlainDecoder(self._search.model, ids)(init_beams(self.device_index, len(ids)))
        return self._search.logits_of(features, level)[:, 0]

    def _rules(self, prompts: int, constraints: Sets, exclude: Exclusions) -> BatchRules:
        restricted = constraints if self.version is None else self.version.restrict(constraints)
        return batch_rules(self.index, prompts, restricted, exclude)

    def _encode(self, prompts: Any, *, num_codes: int = 0) -> list[Ids]:
        """As `encode`, for prompts that are followed by the tokens of some codes."""
        positions = getattr(self._search.model.config, "max_position_embeddings", None)
        return checked(
            as_prompts(prompts, self.tokenizer),
            begin=self.tokens.begin,
            vocabulary_size=self._search.model.vocabulary_size,
            max_length=None if positions is None else positions - self.index.num_levels + 1,
            num_codes=num_codes,
        )

    def _encode_one(self, prompt: Any) -> Ids:
        ids = self.encode(prompt)
        if len(ids) != 1:
            raise ArgumentError(f"expected one prompt; got {len(ids)}.")
        return ids[0]

    @torch.inference_mode()
    def _beams(self, prompts: list[Ids], beam_width: int, rules: BatchRules) -> list[Beams]:
        """The beams after every level of a search."""
        # Training code may have put the model back into training mode.
        self.model.eval()
        constraints = prepared(self.device_index, rules)
        # Graphs are captured only for searches without rules.
        if not self._cuda_graphs or constraints is not None:
            decoder = self._search.decoder(prompts, beam_width)
            return self._search.run(decoder, len(prompts), beam_width, constraints)
        return captured_search(self._search, self._captured, prompts, beam_width)

    def __repr__(self) -> str:
        searched = self.index if self.version is None else self.version
        name, search = type(self.model).__name__, self._search
        return (
            f"Retriever({name} on {search.model.device}, {searched!r}, normalize={search.normalize!r}, "
            f"decoding={self.decoding!r})"
        )
