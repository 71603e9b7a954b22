"""Retriever: prompts to items, with a causal language model of transformers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import torch

from hedgerow._arguments import check_choice, whole_number
from hedgerow.constraints.requests import Candidates, Exclusions, Sets
from hedgerow.decode.device import DeviceIndex
from hedgerow.decode.kernels.dispatch import KernelName
from hedgerow.decode.step import tempered
from hedgerow.errors import ArgumentError
from hedgerow.hf.answering import Answering
from hedgerow.hf.compiled import CompiledLayers
from hedgerow.hf.generation import GenerationScores
from hedgerow.hf.graphs import Graphs, check_capture, check_one_device
from hedgerow.hf.model import CodeModel
from hedgerow.hf.probe import DECODING, Decoding, probe
from hedgerow.hf.prompting import Prompting
from hedgerow.hf.search import NORMALIZE, ModelSearch, Normalize
from hedgerow.hf.searched import Searched, check_token_map, trie_of
from hedgerow.hf.searcher import Searcher
from hedgerow.hf.shapes import Shapes
from hedgerow.hf.tasks import Task, batches_of
from hedgerow.hf.warming import warm_up
from hedgerow.live.live import LiveIndex
from hedgerow.live.version import Version
from hedgerow.picking import OrderBy, Picking
from hedgerow.request import check_fill
from hedgerow.results import Results
from hedgerow.tokens import TokenMap
from hedgerow.trie_index import TrieIndex


class Retriever(Answering, Prompting):
    """Retrieves the catalog items to which a causal language model gives the highest scores, for each prompt.

    The search is exact beam search over the catalog. It gives the beams of
    `model.generate(num_beams=M, prefix_allowed_tokens_fn=...)`, and with `normalize="vocab"` the same scores. Each
    prompt is computed once, and its keys and values are stored once: at each level the M beams are M queries over
    them, separated by a mask.

    Args:
        model: a `...ForCausalLM` of transformers, on its device, or an encoder-decoder model (T5, BART). It may have
            adapters of peft, quantized or offloaded weights. A search uses the model as it is then, and puts it into
            evaluation mode.
        index: the index of the catalog; or a `Version` of a live index, whose removed items are then never returned;
            or a `LiveIndex`, of which the current version is used. For another version, call `refresh`.
        tokens: the tokens of each level's codes. Default: `TokenMap.detect(tokenizer)`. If SIDs are ragged, its end
            token ends a SID before the last level and is scored like a code.
        tokenizer: the tokenizer for text and chats. Not needed for token ids.
        normalize: the codes over which a code's probability is normalized. "codes": the codes of its level (the
            paper). "vocab": the whole vocabulary, as in `generate`. "allowed": the codes that the index and the
            constraints allow after the prefix.
        temperature: divides the logits before they are normalized; a number from 1e-8 to 1e8.
        length_penalty: as in transformers: the scores of finished SIDs are divided by length ** length_penalty, and
            sorted again. The length is the number of tokens: of codes, and of the end if SIDs are ragged. 0, the
            default, gives sums of log-probabilities; `generate` has 1.0, their mean. It does not change which SIDs
            are finished: the levels compare sums.
        decoding: "tree": beams as a tree over the prompt, as above. "plain": every beam's whole sequence at every
            level; slow, for any causal model. "auto": "tree" if a trial run on the model gives the logits of "plain",
            otherwise "plain" with a warning that states the reason. The decoder of an encoder-decoder model keeps a
            cache for each beam instead of a tree.
        max_tokens: the maximum size of a batch in tokens, counting prompts, padding and beams. More prompts are split
            into several batches.
        kernel: as for `hedgerow.step`.
        add_special_tokens: whether the tokenizer adds special tokens to text. Default: those that it adds, without a
            second beginning, if the text has one already (from a chat template), and without an end of the text.
        chat_template_kwargs: options of the tokenizer's chat template, for example `{"enable_thinking": False}` or
            `{"tools": [...]}`. A chat whose last message is of the assistant begins the reply, which the SID continues.
        prefix: text, a chat or token ids that many prompts begin with, for example instructions. Its keys and values
            are computed once, and again if weights are replaced or changed in place. (Changes that PyTorch does not
            count, through `.data`, and changes of numbers such as `attention.scaling`, need a new retriever.) A prompt
            uses as many of its tokens as it begins with.
        cuda_graphs: on a CUDA device, capture the whole search in a graph for each size of batch, prompt, beams and
            rules, unless it has candidates. Prompts are then padded to multiples of 64 tokens, and batches to powers of
            two. If parameters are replaced, or adapters are changed, graphs are captured again. With the `headroom` of
            a live index, versions share the graphs.
        compile: run the layers of the model through `torch.compile`, each as one graph, with their small operations
            fused: for Qwen3, Llama, Gemma 3 and other models that are searched with a tree. The model itself is not
            changed. It is tried with compiled layers here, and refused if their logits differ. `warm_up` compiles all
            that searches need. On a CPU, it needs a C++ compiler. Changed adapters and hooks are compiled again.

    Attributes:
        max_tokens: the maximum size of a batch in tokens.

    Raises:
        ArgumentError: the model, tokens and index do not fit each other; the model cannot run; decoding is "tree" and
            the model does not support it; or another argument is out of range.

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
        length_penalty: float = 0.0,
        decoding: Decoding = "auto",
        max_tokens: int = 16_384,
        kernel: KernelName = "auto",
        add_special_tokens: bool | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        prefix: Any = None,
        cuda_graphs: bool = False,
        compile: bool = False,  # noqa: A002
    ) -> None:
        check_choice(normalize, "normalize", NORMALIZE)
        check_choice(decoding, "decoding", DECODING)
        check_length_penalty(length_penalty)
        self.max_tokens = whole_number(max_tokens, "max_tokens")
        trie, version = trie_of(index)
        if tokens is None and tokenizer is None:
            raise ArgumentError("pass the tokens of the codes (a TokenMap), or a tokenizer to detect them in.")
        check_model(model)
        tokens = TokenMap.detect(tokenizer) if tokens is None else tokens
        check_token_map(tokens)
        self._live = index if isinstance(index, LiveIndex) else None
        if not isinstance(compile, bool):
            raise ArgumentError(f"compile must be True or False; got {compile!r}.")
        code_model = CodeModel(model.eval(), tokens.of_index(trie), CompiledLayers() if compile else None)
        device_index = (version or trie).to("torch", code_model.device)
        # Check the temperature before the trial runs.
        tempered(device_index, torch.zeros(0), temperature, "codes")
        probe(code_model, decoding)
        generation = GenerationScores(model, applies=normalize == "vocab")
        generation.check(stacklevel=2)
        options = (normalize, float(temperature), float(length_penalty), kernel, generation)
        search = ModelSearch(code_model, trie, device_index, decoding, *options)
        if cuda_graphs:
            check_capture(search)
            check_one_device(model)
        graphs, chat_options = Graphs() if cuda_graphs else None, dict(chat_template_kwargs or {})
        searcher = Searcher(search, version, tokens, tokenizer, add_special_tokens, chat_options, graphs)
        self._searcher = searcher if prefix is None else searcher.with_prefix(prefix)

    @property
    def model(self) -> Any:
        """The model, as given."""
        return self._searcher.search.model.model

    @property
    def index(self) -> TrieIndex:
        """The index that is searched."""
        return self._searcher.index

    @property
    def version(self) -> Version | None:
        """The version of a live index that is searched; None if the index is not live."""
        return self._searcher.version

    @property
    def device_index(self) -> DeviceIndex:
        """The index on the model's device."""
        return self._searcher.device_index

    @property
    def tokens(self) -> TokenMap:
        """The token map."""
        return self._searcher.tokens

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, or None."""
        return self._searcher.tokenizer

    @property
    def normalize(self) -> Normalize:
        """The codes over which probabilities are normalized: "codes", "vocab" or "allowed"."""
        return self._searcher.search.normalize

    @property
    def temperature(self) -> float:
        """The number that divides the logits before they are normalized."""
        return self._searcher.search.temperature

    @property
    def length_penalty(self) -> float:
        """The power of the length that divides the scores."""
        return self._searcher.search.length_penalty

    @property
    def decoding(self) -> str:
        """The way beams are computed: "tree", "plain", or "cached" for an encoder-decoder model."""
        return self._searcher.search.way

    def retrieve(
        self,
        prompts: Any,
        *,
        beam_width: int = 50,
        k: int | None = 10,
        constraints: Sets = None,
        exclude: Exclusions = None,
        candidates: Candidates = None,
        order_by: OrderBy = None,
        caps: Mapping[str, int] | None = None,
        fill: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Results]:
        """Retrieve the best items for each prompt: one `Results` per prompt, in the order of the prompts.

        Args:
            prompts: one or several prompts: text, chats (lists of messages), token ids, or the output of a tokenizer.
                The begin delimiter of the token map is appended to prompts that do not end with it.
            beam_width: M, the number of SIDs to follow for each prompt; at least k for k items.
            k: the maximum number of items per prompt. None: all items of the beams.
            constraints: one constraint set for all prompts, or for each prompt its set or None.
            exclude: for each prompt the ids of items to exclude, a constraint set of them, or None; or one set for all
                prompts. Of one prompt, also its list of ids.
            candidates: for each prompt the ids of the items that may be returned, or None for all items: see
                `TrieIndex.candidates`. Of one prompt, also its list of ids.
            order_by: as for `TrieIndex.results`.
            caps: as for `TrieIndex.results`.
            fill: as for `hedgerow.Request`: more beams for prompts with fewer than k items.
            progress: called with the number of finished prompts and the number of all prompts, after each batch.

        Raises:
            ArgumentError: a prompt is empty, too long or not readable, or has NaN or infinite logits; or another
                argument is out of range.
            ConstraintError: the constraints or exclusions do not fit the prompts or the index.

        Examples:
            ```python
            import hedgerow as hr
            from hedgerow.demo.films import load_catalog, load_retriever

            index = hr.build_index(load_catalog())
            retriever = load_retriever(index)
            first, second = retriever.retrieve(["Recommend me a western", "A French comedy"], k=3)
            assert len(first) == 3
            (others,) = retriever.retrieve("Recommend me a western", k=3, exclude=first.item_ids)
            assert not set(others.item_ids) & set(first.item_ids)
            ```
        """
        picking, searcher = Picking(k, order_by, caps), self._searcher
        picking.check_attributes(searcher.index)
        check_fill(fill, k)
        beam_width, ids = searcher.width(beam_width), searcher.encode(prompts)
        rules = searcher.rules(len(ids), constraints, exclude, candidates)
        tasks = [Task(prompt, rules.take([row]), picking, beam_width, fill=fill) for row, prompt in enumerate(ids)]
        results: dict[int, Results] = {}
        for rows in batches_of(searcher.search, tasks, self.max_tokens):
            results |= zip(rows, searcher.results([tasks[row] for row in rows], rows), strict=True)
            if progress is not None:
                progress(len(results), len(ids))
        for row, answer in self._filled(searcher, dict(enumerate(tasks)), results).items():
            if not isinstance(answer, Results):
                raise answer
            results[row] = answer
        return [results[row] for row in range(len(ids))]

    def refresh(self, index: Searched | None = None) -> Version | None:
        """Search another version of the index from now on. Searches that have begun finish on the version they have.

        The model is neither tried nor compiled again, unless the codes have other tokens. If the live index has a
        `headroom`, nothing is compiled or captured for versions that fit.

        Args:
            index: the version, another index of the same codes, or a live index, of which the current version is used.
                Default: the current version of the live index that the retriever was created with.

        Returns:
            The version that is searched now; None if the index is not live.

        Raises:
            ArgumentError: the index does not fit the tokens, or there is none. The previous one is still searched.
            VersionError: the current version cannot be read. The previous one is still searched.

        Examples:
            ```python
            import hedgerow as hr
            from hedgerow.demo.films import load_catalog, load_retriever

            live = hr.LiveIndex.create("films.live", hr.build_index(load_catalog()))
            retriever = load_retriever(live)
            (best,) = retriever.retrieve("Recommend me a western", k=1)
            live.remove(best.item_ids)
            assert retriever.refresh().number == 2
            assert retriever.retrieve("Recommend me a western", k=1)[0].item_ids != best.item_ids
            ```
        """
        if index is None:
            index = self._live
        if index is None:
            raise ArgumentError("this retriever was not created with a LiveIndex; pass the index or the version.")
        trie, version = trie_of(index)
        self._searcher = self._searcher.of(trie, version)
        if isinstance(index, LiveIndex):
            self._live = index
        return version

    def warm_up(self, shapes: Shapes | None = None, *, progress: Callable[[int, int], None] | None = None) -> None:
        """Compile, capture and load what the first requests would wait for, by searches of all kinds of requests.

        After it, no search of these shapes compiles a kernel or captures a graph. After `refresh` this holds as well,
        if the live index has a `headroom` and the version fits.

        Args:
            shapes: the sizes of the traffic. Default: `Shapes()`.
            progress: called with the number of finished searches and the number of all searches.

        Raises:
            ArgumentError: the model gives NaN or infinite logits.

        Examples:
            ```python
            import hedgerow as hr
            from hedgerow.demo.films import load_catalog, load_retriever
            from hedgerow.hf import Shapes

            retriever = load_retriever(hr.build_index(load_catalog()))
            retriever.warm_up(Shapes(beam_widths=(50,), batch_size=8, prompt_length=64, sets=4, excluded=20))
            ```
        """
        if not isinstance(shapes, Shapes | None):
            raise ArgumentError(f"shapes must be a hedgerow.hf.Shapes; got {type(shapes).__name__}.")
        warm_up(self._searcher, shapes or Shapes(), progress)

    def __repr__(self) -> str:
        searched = self.index if self.version is None else self.version
        name, search = type(self.model).__name__, self._searcher.search
        return (
            f"Retriever({name} on {search.model.device}, {searched!r}, normalize={search.normalize!r}, "
            f"decoding={self.decoding!r})"
        )


def check_model(model: Any) -> None:
    """Check that a model is one of transformers, or wraps one.

    Raises:
        ArgumentError: it is not.
    """
    if isinstance(model, torch.nn.Module) and hasattr(model, "config"):
        return
    advice = " Load it with AutoModelForCausalLM.from_pretrained(...)." if isinstance(model, str | Path) else ""
    if isinstance(getattr(model, "module", None), torch.nn.Module):
        advice = " Pass the model that it wraps: model.module."
    raise ArgumentError(f"model must be a ...ForCausalLM of transformers; got {type(model).__name__}.{advice}")


def check_length_penalty(length_penalty: Any) -> None:
    """Check that a length penalty is a finite number.

    Raises:
        ArgumentError: it is not.
    """
    is_number = isinstance(length_penalty, Real) and not isinstance(length_penalty, bool)
    if not is_number or not math.isfinite(length_penalty):
        raise ArgumentError(f"length_penalty must be a finite number; got {length_penalty!r}.")
