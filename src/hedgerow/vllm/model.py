"""The adapter: makes a pooling model, which retrieves, of any `...ForCausalLM` of vLLM's registry."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hedgerow.errors import ArgumentError
from hedgerow.vllm.settings import is_configured, read_settings
from hedgerow.vllm.stored_sets import prepare_folder

SUFFIX = "ForCausalLM"
# vLLM's own entries, by the name of the architecture.
_ORIGINALS: dict[str, Any] = {}


def register() -> None:
    """Let vLLM use the adapter for all causal models. vLLM calls this in each of its processes.

    Without HEDGEROW_INDEX it does nothing, so an installed hedgerow does not change vLLM.
    """
    if not is_configured():
        return
    from vllm import ModelRegistry  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

    prepare_folder()
    for name in [name for name in ModelRegistry.models if name.endswith(SUFFIX) and name not in _ORIGINALS]:
        _ORIGINALS[name] = ModelRegistry.models[name]
        ModelRegistry.register_model(name, f"{__name__}:{name}")


def __getattr__(name: str) -> Any:
    """The adapted class of an architecture. vLLM imports it by this name when a model is loaded."""
    if name not in _ORIGINALS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return adapted(_ORIGINALS[name].load_model_cls())


def adapted(original: Any) -> Any:
    """A class like `original`, a causal model of vLLM, that is a pooling model as well.

    Args:
        original: the class.
    """
    from vllm.forward_context import (  # pyright: ignore[reportMissingImports]
        get_forward_context,
        is_forward_context_available,
    )
    from vllm.model_executor.models.interfaces_base import (  # pyright: ignore[reportMissingImports]
        VllmModelForPooling,
    )

    class Adapted(original, VllmModelForPooling):  # type: ignore[misc]
        is_pooling_model = True
        default_seq_pooling_type = "LAST"

        def __init__(self, *, vllm_config: Any, prefix: str = "", **options: Any) -> None:
            super().__init__(vllm_config=vllm_config, prefix=prefix, **options)
            self._metadata: Any = None
            if vllm_config.model_config.runner_type == "pooling":
                self.pooler = _pooler(self, vllm_config)

        def forward(self, *arguments: Any, **named: Any) -> Any:
            """Run the model, and note what its attention gets: the pooler reads the prompts from the same blocks."""
            self._metadata = get_forward_context().attn_metadata if is_forward_context_available() else None
            return super().forward(*arguments, **named)

        def states(self, ids: Any, positions: Any) -> Any:
            """The hidden states of tokens."""
            return super().forward(ids, positions)

        def take_metadata(self) -> Any:
            """What the attention got, once: later batches must not read the blocks of this one."""
            metadata, self._metadata = self._metadata, None
            return metadata

    Adapted.__name__ = Adapted.__qualname__ = original.__name__
    return Adapted


def _pooler(model: Any, vllm_config: Any) -> Any:
    """The pooler of a model.

    Raises:
        HedgerowError: the index or the tokens cannot be loaded, or the model cannot be searched.
    """
    from vllm.model_executor.layers.attention_layer_base import (  # pyright: ignore[reportMissingImports]
        AttentionLayerBase,
    )

    from hedgerow.hf.loading import load_tokenizer, load_tokens
    from hedgerow.vllm.engine import EngineSearch
    from hedgerow.vllm.paged import shape_of
    from hedgerow.vllm.pooler import BeamPooler
    from hedgerow.vllm.served import ServedModel

    check_config(vllm_config)
    settings, config = read_settings(), vllm_config.model_config
    tokens, normalize = load_tokens(config.tokenizer, load_tokenizer(config.tokenizer), settings.pattern)
    layers = vllm_config.compilation_config.static_forward_context
    shapes = {
        name: shape_of(name, layer, tokens.num_levels)
        for name, layer in layers.items()
        if isinstance(layer, AttentionLayerBase)
    }
    options = {"normalize": settings.normalize or normalize, "temperature": settings.temperature}
    check_generation(config.model, str(options["normalize"]))
    served = ServedModel(model, tokens, vllm_config, shapes)
    search = EngineSearch(served, settings.index, tokens, options, settings.max_tokens, prepare_folder())
    return BeamPooler(model, search)


def check_generation(folder: str, normalize: str) -> None:
    """Check that a `Retriever` would not change scores as the generation configuration of a model says.

    Raises:
        ArgumentError: it would, and a search inside vLLM does not.
    """
    from transformers import GenerationConfig

    from hedgerow.hf.generation import GenerationScores

    try:
        generation = GenerationConfig.from_pretrained(folder)
    except OSError:
        return
    names = GenerationScores(SimpleNamespace(generation_config=generation), applies=normalize == "vocab").names
    if names:
        raise ArgumentError(
            f"the generation configuration of {folder} has {', '.join(names)}, which normalize='vocab' applies and a "
            "search inside vLLM does not. Remove them from generation_config.json, or set HEDGEROW_NORMALIZE=codes."
        )


def check_config(vllm_config: Any) -> None:
    """Check that a search can run as vLLM is configured.

    Raises:
        ArgumentError: it cannot.
    """
    parallel = vllm_config.parallel_config
    reasons = {
        "--tensor-parallel-size above 1": parallel.tensor_parallel_size > 1,
        "--pipeline-parallel-size above 1": parallel.pipeline_parallel_size > 1,
        "context parallelism": getattr(parallel, "decode_context_parallel_size", 1) > 1
        or getattr(parallel, "prefill_context_parallel_size", 1) > 1,
        "LoRA adapters (merge them into the weights)": vllm_config.lora_config is not None,
        "speculative decoding": vllm_config.speculative_config is not None,
    }
    found = [reason for reason, holds in reasons.items() if holds]
    if found:
        raise ArgumentError(
            f"retrieval inside vLLM does not support {' or '.join(found)}. Each search must see the whole model; for "
            "more requests, start more replicas (--data-parallel-size)."
        )
