"""EngineSearch: searches in the engine's process, of the versions of the index that requests name."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hedgerow.candidates import candidate_index
from hedgerow.constraints.requests import BatchRules, rules_of_rows
from hedgerow.decode.device import DeviceIndex
from hedgerow.decode.prepare import prepared
from hedgerow.errors import ArgumentError
from hedgerow.hf.search import ModelSearch
from hedgerow.live.live import LiveIndex
from hedgerow.live.opened import open_searched
from hedgerow.tokens import TokenMap
from hedgerow.trie_index import TrieIndex
from hedgerow.vllm.paged import Prompts
from hedgerow.vllm.served import PagedDecoder, ServedModel
from hedgerow.vllm.stored_sets import SetReader
from hedgerow.vllm.wire import Asked, pack_answer

# The versions of a live index that stay loaded: the current one, a canary, and one before.
MAX_VERSIONS = 3


@dataclass(frozen=True, eq=False)
class Loaded:
    """A version of the index that is ready to be searched.

    Attributes:
        index: the index.
        device_index: the index on the device of the model.
        model: the model, with the tokens of the index.
        sets: reads the sets of the index.
    """

    index: TrieIndex
    device_index: DeviceIndex
    model: ServedModel
    sets: SetReader


@dataclass(frozen=True, eq=False)
class Batch:
    """Requests that are searched together.

    Attributes:
        asked: B requests of one version; if they have candidates, there is one.
        states: [B, hidden], the hidden states of the last tokens of their prompts.
        metadata: what vLLM's attention got for its batch, by layer.
        rows: the rows of the requests in that batch.
        lengths: the lengths of the prompts.
    """

    asked: list[Asked]
    states: Tensor
    metadata: Mapping[str, Any]
    rows: list[int]
    lengths: list[int]


class EngineSearch:
    """Searches of an index with a model of vLLM.

    Args:
        model: the model.
        path: a saved index, or a live index.
        tokens: the token map.
        options: `normalize` and `temperature`.
        max_tokens: the largest number of beams times codes of a search.
        sets: the folder of stored sets.
    """

    def __init__(
        self, model: ServedModel, path: Path, tokens: TokenMap, options: Mapping[str, Any], max_tokens: int, sets: Path
    ) -> None:
        self._model, self._tokens, self._options = model, tokens, dict(options)
        self._max_tokens, self._sets = max_tokens, sets
        opened = open_searched(path)
        self._live = opened if isinstance(opened, LiveIndex) else None
        self._loaded: OrderedDict[int | None, Loaded] = OrderedDict()
        if isinstance(opened, LiveIndex):
            self.version(opened.version.number)
        else:
            self._loaded[None] = self._ready(opened, opened.to("torch", model.device))

    def version(self, number: int | None) -> Loaded:
        """A version of the index, loaded on first use.

        Raises:
            ArgumentError: the index is not live, or is live and no version is named.
            VersionError: the version does not exist or is damaged.
        """
        if number not in self._loaded:
            if self._live is None or number is None:
                raise ArgumentError(f"the engine has no version {number} of its index.")
            version = self._live.load_version(number)
            self._loaded[number] = self._ready(version.index, version.to("torch", self._model.device))
            if len(self._loaded) > MAX_VERSIONS:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(number)
        return self._loaded[number]

    def _ready(self, index: TrieIndex, device_index: DeviceIndex) -> Loaded:
        model = self._model.with_tokens(self._tokens.of_index(index))
        return Loaded(index, device_index, model, SetReader(self._sets, index))

    def batch_size(self, beam_width: int) -> int:
        """The number of requests of a width that are searched together."""
        num_levels = max(loaded.index.num_levels for loaded in self._loaded.values())
        return max(1, self._max_tokens // (beam_width * num_levels))

    def answers(self, batch: Batch) -> list[Tensor]:
        """The packed answers of a batch.

        Raises:
            ArgumentError: a request is invalid, or the model gives NaN or infinite logits for it.
            VersionError: as for `version`.
        """
        started = time.perf_counter()
        loaded = self.version(batch.asked[0].version)
        widths = [min(request.beam_width, max(1, loaded.index.num_sids)) for request in batch.asked]
        search, constraints = self._search(loaded, _rules(loaded, batch.asked))
        device = loaded.model.device
        prompts = Prompts.of(batch.metadata, batch.rows, batch.lengths, device)
        narrower = torch.tensor(widths, device=device) if len(set(widths)) > 1 else None
        decoder = PagedDecoder(loaded.model, prompts, batch.states)
        found = search.run(decoder, len(widths), max(widths), constraints, (), narrower)
        beams, invalid = found.history[-1], found.invalid.any(-1).tolist()
        if any(invalid):
            raise ArgumentError(
                "the logits of the model are NaN or infinite for this prompt, so no item has a score. Half precision "
                "can overflow: start vLLM with --dtype bfloat16 or float32."
            )
        options = {"batch_size": len(widths), "seconds": time.perf_counter() - started}
        return [pack_answer(beams, request, width, **options) for request, width in enumerate(widths)]

    def _search(self, loaded: Loaded, rules: BatchRules) -> tuple[ModelSearch, Any]:
        """The search of requests, and its constraints: of the index, or of an index of the candidates."""
        if rules.candidates is not None:
            device_index, constraints = candidate_index(rules).to("torch", loaded.model.device), None
        else:
            device_index, constraints = loaded.device_index, prepared(loaded.device_index, rules)
        search = ModelSearch(
            loaded.model,
            loaded.index,
            device_index,
            "tree",
            self._options["normalize"],
            self._options["temperature"],
            length_penalty=0.0,
            kernel="auto",
            generation=None,
        )
        return search, constraints


def _rules(loaded: Loaded, asked: list[Asked]) -> BatchRules:
    """The rules of requests.

    Raises:
        ArgumentError: a row is beyond the index, or a stored set cannot be read.
    """
    for request in asked:
        for rows in (request.excluded, request.candidates):
            if rows is not None and len(rows) and not 0 <= rows.min() <= rows.max() < loaded.index.num_items:
                raise ArgumentError(f"a request names a row beyond the {loaded.index.num_items:,} of the index.")
    sets = [None if request.items is None else loaded.sets(request.items) for request in asked]
    listed = [request.candidates for request in asked]
    excluded = [request.excluded for request in asked]
    return rules_of_rows(loaded.index, sets, excluded, listed)
