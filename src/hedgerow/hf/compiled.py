"""Compiled layers: torch.compile computes each layer of a model, with its small operations fused."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

from hedgerow.errors import ArgumentError
from hedgerow.hf.caches import cache_folders
from hedgerow.hf.layers import modules_of
from hedgerow.hf.stored import TreeLayer
from hedgerow.hf.temporary import is_replaceable, replaced

BACKEND = "inductor"
# A layer has one form for each combination of: the first pass or a level; one request or several; one token or
# several; the kinds of its attention; the adapters that are active.
MAX_FORMS = 256
# Sizes are compared one by one: two that are equal in one search may differ in the next.
SHAPES = {"use_duck_shape": False}
# Hooks on the parts of a layer are compiled with it, so a form is for the hooks that it has.
TRACING = {"recompile_limit": MAX_FORMS, "accumulated_recompile_limit": MAX_FORMS, "skip_nnmodule_hook_guards": False}
# The guards of PyTorch can fail in a thread while another checks them, and the layer would be compiled again.
_ONE_AT_A_TIME = threading.Lock()


class CompiledLayers:
    """Runs the layers of a model compiled, in the thread that calls the model within `applied`.

    All layers share the compiled code, whose inputs are their weights, keys and values. Sizes are variables of it, so
    it is compiled for kinds of searches and not for lengths. It is compiled when it is first needed. Between calls, the
    model is as it was given, and other threads always run its own layers.
    """

    def __init__(self) -> None:
        self._compiled: Callable[..., Any] | None = None
        self._found: tuple[Any, list[tuple[int, Any]]] = (None, [])

    def __getstate__(self) -> dict[str, Any]:
        """Compiled code is not copied or saved."""
        return {}

    def __setstate__(self, _: dict[str, Any]) -> None:
        self.__init__()

    @contextmanager
    def applied(self, model: Any, key: Any = None) -> Iterator[None]:
        """Within it, calls of the model by this thread run its compiled layers.

        Args:
            model: the model.
            key: equal keys have the same layers, which are not looked for again. Default: no key.

        Raises:
            ArgumentError: another library has replaced the methods of the layers; or they cannot be compiled.
        """
        # These take a second to import.
        import torch._dynamo
        import torch.fx.experimental._config
        from torch._dynamo.exc import TorchDynamoException

        found = self._found
        if key is None or key is not found[0]:
            self._found = found = key, list(_layers_of(model))
        with ExitStack() as stack:
            stack.enter_context(torch._dynamo.config.patch(TRACING))
            stack.enter_context(torch.fx.experimental._config.patch(SHAPES))  # pyright: ignore
            stack.enter_context(replaced(found[1], self._run))
            try:
                yield
            except TorchDynamoException as error:
                raise ArgumentError(_cannot_compile(model, error)) from error

    def _run(self, layer: Any, place: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a compiled layer, and store the keys and values of the first pass in the cache."""
        if self._compiled is None:
            self._compiled = _compiled()
        name = next((name for name, value in kwargs.items() if isinstance(value, Cache)), None)
        if name is None:
            with _ONE_AT_A_TIME:
                return self._compiled(layer, args, kwargs, None, None, None, 0, 0)[0]
        stored = _stored(kwargs[name], place)
        if stored.keys is None:
            # The memory is never full, for which the code would have another form.
            stored.capacity += 1
            stored.begin(len(args[0] if args else kwargs["hidden_states"]))
        kwargs = kwargs | {name: None}
        used = stored.used
        with _ONE_AT_A_TIME:
            output, keys, values, end = self._compiled(
                layer, args, kwargs, name, stored.keys, stored.values, used, stored.capacity
            )
        if keys is not None:
            stored.keys, stored.values, stored.is_initialized = keys, values, True
        stored.used = end
        return output


class _OneLayer:
    """The part of a cache that a layer uses: `TreeLayer` is made anew in the traced function, from its tensors."""

    def __init__(self, stored: TreeLayer) -> None:
        self.stored = stored

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return self.stored.update(key_states, value_states)

    def get_seq_length(self, *_: Any) -> int:
        return self.stored.get_seq_length()


def _call(
    layer: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    name: str | None,
    keys: Tensor | None,
    values: Tensor | None,
    used: int,
    capacity: int,
) -> tuple[Any, Tensor | None, Tensor | None, int]:
    """The traced function: the output of a layer, its keys and values if they are new, and the number of them."""
    if name is None:
        return type(layer).forward(layer, *args, **kwargs), None, None, 0
    stored = TreeLayer(capacity)
    stored.keys, stored.values, stored.used = keys, values, used
    output = type(layer).forward(layer, *args, **{**kwargs, name: _OneLayer(stored)})
    new_keys, new_values = (stored.keys, stored.values) if keys is None else (None, None)
    return output, new_keys, new_values, stored.used


def _compiled() -> Callable[..., Any]:
    """Prepare compiled code of its own: PyTorch keeps it with the code object of the function."""
    own = FunctionType(_call.__code__.replace(), _call.__globals__, _call.__name__)
    return torch.compile(own, fullgraph=True, dynamic=True, backend=BACKEND)


def _stored(cache: Cache, place: int) -> TreeLayer:
    """The keys and values of a layer."""
    while len(cache.layers) <= place:
        assert cache.layer_class_to_replicate is not None
        cache.layers.append(cache.layer_class_to_replicate())
    stored = cache.layers[place]
    assert isinstance(stored, TreeLayer)
    return stored


def _layers_of(model: Any) -> Iterator[tuple[int, Any]]:
    """The layers of a model, each with its place among them.

    Raises:
        ArgumentError: the model has none, or another library has replaced their methods.
    """
    name, lists = type(model).__name__, [m for m in modules_of(model) if isinstance(m, torch.nn.ModuleList)]
    found = [(place, layer) for layers in lists for place, layer in enumerate(layers)]
    found = [(place, layer) for place, layer in found if isinstance(layer, GradientCheckpointingLayer)]
    if not found:
        raise ArgumentError(f"compile=True does not support {name}: no layers of transformers are found in it.")
    for place, layer in found:
        if is_replaceable(layer):
            yield place, layer
            continue
        raise ArgumentError(
            f"compile=True does not support {name}: another library has replaced the method of {type(layer).__name__}, "
            "for example to offload or to compile it. Load the model without that, or leave compile off."
        )


def _cannot_compile(model: Any, error: BaseException) -> str:
    reason = " ".join(str(error).strip().splitlines()[:2]).rstrip(".")
    return (
        f"compile=True does not support {type(model).__name__}: torch.compile cannot compile its layers: "
        f"{type(error).__name__}: {reason}. Leave compile off."
    )


def check_compiler(device: torch.device) -> None:
    """Check that a compiler for the code of torch.compile is installed, and that it can store the code.

    Raises:
        ArgumentError: there is none, or the folder cannot be written.
    """
    if BACKEND != "inductor":
        return
    for folder in cache_folders(device.type, compiled=True):
        folder.check()
    if device.type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            raise ArgumentError(
                "compile=True on a CPU needs a C++ compiler, and none is found. Install g++, set the variable CXX to "
                "another, or leave compile off."
            ) from None
    elif device.type == "cuda" and not any(map(shutil.which, ("cc", "gcc", "clang"))):
        raise ArgumentError(
            "compile=True on a GPU needs a C compiler for Triton, and none is found. Install gcc, or leave compile off."
        )
