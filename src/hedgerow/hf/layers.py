"""What can be read from the layers of a model, whichever library wraps, packs or offloads them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from hedgerow.errors import ArgumentError
from hedgerow.hf.temporary import TemporaryForward

# What adapters of peft change without replacing a module.
ADAPTER_STATE = ("_active_adapter", "_disable_adapters", "merged_adapters", "scaling")


def device_of(model: Any) -> torch.device:
    """Find the device of the token ids that a model reads."""
    devices = (device for device in _devices(model) if device.type != "meta")
    return next(devices, torch.device("meta"))


def _devices(model: Any) -> Iterator[torch.device]:
    embeddings = model.get_input_embeddings()
    weight = getattr(embeddings, "weight", None)
    if isinstance(weight, Tensor):
        yield weight.device
    # accelerate keeps offloaded weights on "meta", and moves them to this device when they are needed.
    for hook in _hooks(embeddings, model):
        device = getattr(hook, "execution_device", None)
        if device is not None:
            yield torch.device(device)
    for parameter in model.parameters():
        yield parameter.device


def check_loaded(model: Any) -> None:
    """Check that the weights of a model have values. With some of them on "meta", PyTorch can compute zeros.

    Raises:
        ArgumentError: they have none, and accelerate does not load them when they are needed.
    """
    missing = [name for name, weight in model.named_parameters() if weight.is_meta]
    if missing and not any(hasattr(module, "_hf_hook") for module in model.modules()):
        raise ArgumentError(
            f"the weights of {type(model).__name__} are not loaded: {missing[0]} is on the device 'meta'. Load the "
            "model with from_pretrained(...), or fill it with model.to_empty(...) and load_state_dict(...)."
        )


def _hooks(*modules: Any) -> Iterator[Any]:
    for module in modules:
        hook = getattr(module, "_hf_hook", None)
        yield from getattr(hook, "hooks", (hook,))


def input_size(model: Any) -> int:
    """Find the number of tokens that a model reads: the rows of its input embeddings, also if they are packed."""
    embeddings = model.get_input_embeddings()
    size, weight = getattr(embeddings, "num_embeddings", None), getattr(embeddings, "weight", None)
    if isinstance(size, int):
        return size
    if isinstance(weight, Tensor) and weight.ndim == 2 and weight.is_floating_point():
        return int(weight.shape[0])
    return int(model.config.get_text_config(decoder=True).vocab_size)


def cache_argument(model: Any) -> str:
    """Find the name of the argument for stored keys and values, which is "cache" from transformers 5.24 on."""
    base = getattr(model, "_orig_mod", model)
    base = base.get_base_model() if hasattr(base, "get_base_model") else base
    parameters = inspect.signature(type(base).forward).parameters
    return "cache" if "cache" in parameters else "past_key_values"


def is_plain_linear(layer: Any) -> bool:
    """Whether a layer computes the product of its input and its weight, and nothing else.

    Not so: quantized layers, layers with adapters, parametrized weights, offloaded or partitioned weights.
    """
    if type(layer) is not torch.nn.Linear or "forward" in vars(layer):
        return False
    weight = layer.weight
    return (
        type(weight) in (torch.nn.Parameter, Tensor)
        and tuple(weight.shape) == (layer.out_features, layer.in_features)
        and weight.is_floating_point()
        and weight.device.type != "meta"
    )


def state_key(model: Any) -> tuple[Any, ...]:
    """Describe all that decides how a model is searched: another key needs another trial.

    It holds the modules, the shapes and types of the first and the last, and the attention. It does not hold the
    values of weights, which a search reads anew.
    """
    config = model.config.get_text_config(decoder=True)
    attention = tuple(
        str(getattr(config, name, None)) for name in ("_attn_implementation", "sliding_window", "layer_types")
    )
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    weights = tuple(_described(getattr(layer, "weight", None)) for layer in ends)
    modules: list[Any] = []
    for module in modules_of(model):
        attributes = module.__dict__
        modules += (id(module), module.__class__)
        # Not the hooks before a module: a search has one of its own.
        if attributes["_forward_hooks"]:
            modules += map(id, attributes["_forward_hooks"].values())
        # What replaces the method of the class.
        forward, compiled = attributes.get("forward"), attributes.get("_compiled_call_impl")
        if not isinstance(forward, TemporaryForward | None) or compiled is not None:
            modules += (id(forward), id(compiled))
    return tuple(modules), tuple(map(id, ends)), weights, input_size(model), attention, device_of(model)


def _described(weight: Any) -> tuple[Any, ...]:
    return (tuple(weight.shape), weight.dtype, weight.device) if isinstance(weight, Tensor) else (type(weight),)


def modules_of(model: Any) -> list[Any]:
    """All modules of a model, as `model.modules()`, which takes several times as long."""
    found, seen, left = [], set(), [model]
    while left:
        module = left.pop()
        if module is not None and id(module) not in seen:
            seen.add(id(module))
            found.append(module)
            left.extend(module.__dict__["_modules"].values())
    return found


def put_into_evaluation_mode(model: Any) -> None:
    """Call `model.eval()`, unless it would change nothing."""
    if any(module.training for module in modules_of(model)):
        model.eval()


def capture_key(model: Any) -> tuple[Any, ...]:
    """Describe all that a captured graph has fixed beside `state_key`: where tensors are, and what adapters do."""
    weights, adapters = [], []
    for module in modules_of(model):
        attributes = module.__dict__
        held = (*attributes["_parameters"].values(), *attributes["_buffers"].values())
        weights += [tensor.data_ptr() for tensor in held if tensor is not None]
        if "_active_adapter" in attributes:
            adapters += [repr(attributes.get(name)) for name in ADAPTER_STATE]
    return tuple(weights), tuple(adapters)
