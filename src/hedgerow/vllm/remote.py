"""A retriever whose model is in vLLM's engine: it checks requests, and makes results of the engine's beams."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from hedgerow.candidates import candidate_index
from hedgerow.errors import ArgumentError
from hedgerow.hf import Retriever
from hedgerow.hf.loading import load_tokenizer, load_tokens
from hedgerow.hf.model import CodeModel
from hedgerow.hf.prompts import Ids
from hedgerow.hf.search import ModelSearch
from hedgerow.hf.searched import Searched, trie_of
from hedgerow.hf.searcher import Searcher, results_of
from hedgerow.hf.tasks import Task
from hedgerow.live.live import LiveIndex
from hedgerow.live.opened import open_searched
from hedgerow.live.version import Version
from hedgerow.results import Results
from hedgerow.tokens import TokenMap
from hedgerow.trie_index import TrieIndex
from hedgerow.vllm.settings import PluginSettings, read_settings
from hedgerow.vllm.stored_sets import SetWriter, prepare_folder
from hedgerow.vllm.wire import KEY, Asked, Found, unpack_answer

# Answers packed requests with the token ids of their prompts.
Ask = Callable[[list[tuple[Ids, dict[str, Any]]]], list[Tensor]]


class RemoteModel(CodeModel):
    """What is known of a model that runs in the engine.

    Args:
        config: vLLM's configuration of the model.
        tokens: the tokens of each level's codes.
    """

    def __init__(self, config: Any, tokens: TokenMap) -> None:
        self.model, self._config, self.probed = None, config, None
        self.read_tokens(tokens)

    def with_tokens(self, tokens: TokenMap) -> RemoteModel:
        """The same model, with other tokens."""
        return RemoteModel(self._config, tokens)

    @property
    def vocabulary_size(self) -> int:
        """V."""
        return self._config.get_vocab_size()

    @property
    def is_encoder_decoder(self) -> bool:
        """False: decoders only."""
        return False

    @property
    def config(self) -> Any:
        """The configuration of the language model."""
        return self._config.hf_text_config

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return torch.device("cpu")

    @property
    def max_model_len(self) -> int:
        """The largest number of positions in vLLM's cache and of the model."""
        return self._config.max_model_len


@dataclass(frozen=True, eq=False)
class RemoteSearcher(Searcher):
    """A model in vLLM's engine, and one version of an index.

    Attributes:
        writer: stores sets where the engine finds them.
        ask: answers requests. None: the requests of this searcher are sent by others.
    """

    writer: SetWriter
    ask: Ask | None = None

    def of(self, index: TrieIndex, version: Version | None) -> RemoteSearcher:
        """The same model on another version of the index.

        Raises:
            ArgumentError: the index does not fit the tokens.
        """
        model, tokens = cast("RemoteModel", self.search.model), self.tokens.of_index(index)
        model = model if tokens == model.tokens else model.with_tokens(tokens)
        device_index = (version or index).to("torch", model.device)
        search = replace(self.search, model=model, index=index, device_index=device_index)
        return replace(self, search=search, version=version)

    def max_length(self) -> int | None:
        """The largest number of tokens of a prompt."""
        of_model = super().max_length()
        of_cache = cast("RemoteModel", self.search.model).max_model_len - self.search.num_read
        return of_cache if of_model is None else min(of_model, of_cache)

    def pack(self, task: Task) -> dict[str, Any]:
        """The `extra_kwargs` of vLLM's `PoolingParams` for a task."""
        items, number = task.rules.set_of(0), None if self.version is None else self.version.number
        asked = Asked(
            number,
            task.beam_width,
            None if items is None else self.writer.name_of(items),
            task.rules.excluded_by(0),
            task.rules.candidates_of(0),
        )
        return {KEY: asked.pack()}

    def read(self, task: Task, found: Found) -> Results:
        """The results of what the engine found for a task.

        Raises:
            ArgumentError: the engine has searched another index.
        """
        candidates = None if task.rules.candidates is None else candidate_index(task.rules)
        widths = [task.beam_width]
        return results_of(self.index, found.beams, task.rules, [task.picking], widths, candidates)[0]

    def results(self, tasks: Sequence[Task], numbers: Sequence[int]) -> list[Results]:  # noqa: ARG002
        """Answer tasks."""
        if self.ask is None:
            raise ArgumentError("the requests of this retriever are sent by the server.")
        answers = self.ask([(task.ids, self.pack(task)) for task in tasks])
        return [self.read(task, unpack_answer(answer)) for task, answer in zip(tasks, answers, strict=True)]

    def scores(self, prompt: Ids, leaves: np.ndarray) -> np.ndarray:  # noqa: ARG002
        """The engine answers searches only."""
        raise ArgumentError("scores of given items need the model; pass the items as candidates to retrieve instead.")


class RemoteRetriever(Retriever):
    """A `Retriever` whose searches run inside vLLM: `retrieve`, `answer`, `encode`, `history_prompt` and `refresh`."""

    def __init__(self, searcher: RemoteSearcher, live: LiveIndex | None, max_tokens: int) -> None:
        # Not as the base does: there is no model in this process to try.
        self._searcher, self._live, self.max_tokens = searcher, live, max_tokens


def open_index(settings: PluginSettings) -> Searched:
    """The index of the settings.

    Raises:
        IndexFileError: it cannot be loaded.
    """
    return open_searched(settings.index)


def remote_retriever(config: Any, settings: PluginSettings, *, ask: Ask | None = None) -> RemoteRetriever:
    """The retriever of a model in vLLM's engine.

    Args:
        config: vLLM's configuration of the model.
        settings: the settings, which the engine has as well.
        ask: as for `RemoteSearcher`.

    Raises:
        HedgerowError: the index or the tokens cannot be loaded, or do not fit each other.
    """
    tokenizer = load_tokenizer(config.tokenizer)
    tokens, normalize = load_tokens(config.tokenizer, tokenizer, settings.pattern)
    index = open_index(settings)
    trie, version = trie_of(index)
    model = RemoteModel(config, tokens.of_index(trie))
    search = ModelSearch(
        model,
        trie,
        (version or trie).to("torch", model.device),
        "tree",
        cast("Any", settings.normalize or normalize),
        settings.temperature,
        length_penalty=0.0,
        kernel="auto",
        generation=None,
    )
    writer = SetWriter(prepare_folder())
    options: Mapping[str, Any] = {}
    searcher = RemoteSearcher(search, version, tokens, tokenizer, None, options, None, writer, ask)
    return RemoteRetriever(searcher, index if isinstance(index, LiveIndex) else None, settings.max_tokens)


def offline_retriever(llm: Any, settings: PluginSettings | None = None) -> RemoteRetriever:
    """A retriever that searches inside a `vllm.LLM` of this process.

    Args:
        llm: `vllm.LLM(model, runner="pooling")`, made with HEDGEROW_INDEX in the environment.
        settings: as for `remote_retriever`. Default: those of the environment.

    Raises:
        HedgerowError: as for `remote_retriever`.

    Examples:
        ```python
        import os

        os.environ["HEDGEROW_INDEX"] = "items.hedgerow"
        from vllm import LLM
        from hedgerow.vllm.remote import offline_retriever

        retriever = offline_retriever(LLM("model", runner="pooling"))
        (results,) = retriever.retrieve("Recommend me a western", k=3)
        ```
    """
    from vllm import PoolingParams  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

    def ask(requests: list[tuple[Ids, dict[str, Any]]]) -> list[Tensor]:
        prompts = [{"prompt_token_ids": ids} for ids, _ in requests]
        params = [PoolingParams(task="embed", extra_kwargs=packed) for _, packed in requests]
        answers = llm.encode(prompts, params, pooling_task="embed", use_tqdm=False)
        return [answer.outputs.data for answer in answers]

    return remote_retriever(llm.llm_engine.model_config, settings or read_settings(), ask=ask)
