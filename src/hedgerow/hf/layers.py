"""What can be read from the layers of a model, whichever library wraps, packs or offloads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from hedgerow.errors import ArgumentError

# What adapters of peft change without replacing a module.
ADAPTER_STATE = ("_active_adapter", "_disable_adapters", "merged_adapters", "scaling")


def device_of(model: Any) -> torch.device:
    """Find the device of the token ids that a model reads."""
    embeddings = model.get_input_embeddings()
    weight = getattr(embeddings, "weight", None)
    devices = [weight.device] if isinstance(weight, Tensor) else []
    # accelerate keeps offloaded weights on "meta", and moves them to this device when they are needed.
    executes = (getattr(hook, "execution_device", None) for hook in _hooks(embeddings, model))
    devices += [torch.device(device) for device in executes if device is not None]
    devices += [parameter.device for parameter in model.parameters()]
    return next((device for device in devices if device.type != "meta"), torch.device("meta"))


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
    return tuple(_modules(model)), tuple(map(id, ends)), weights, input_size(model), attention, device_of(model)


def _described(weight: Any) -> tuple[Any, ...]:
    return (tuple(weight.shape), weight.dtype, weight.device) if isinstance(weight, Tensor) else (type(weight),)


def _modules(model: Any) -> Iterator[Any]:
    """The identity and the type of every module, and the methods that replace its own."""
    seen, left = set(), [model]
    while left:
        module = left.pop()
        if module is None or id(module) in seen:
            continue
        seen.add(id(module))
        yield id(module), type(module)
        attributes = vars(module)
        for name in ("forward", "_compiled_call_impl"):
            if attributes.get(name) is not None:
                yield id(attributes[name])
        left.extend(attributes["_modules"].values())


def capture_key(model: Any) -> tuple[Any, ...]:
    """Describe all that a captured graph has fixed beside `state_key`: where weights are, and what adapters do."""
    weights = tuple(weight.data_ptr() for weight in model.parameters())
    adapters = tuple(
        repr(vars(module)[name]) for module in model.modules() for name in ADAPTER_STATE if name in vars(module)
    )
    return weights, adapters
