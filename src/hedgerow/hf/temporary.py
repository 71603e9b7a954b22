"""Methods of modules that a search replaces while it runs. In other threads, they do what they always do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

# Called in place of a module's method, with the module, its number, and the arguments of the call.
Run = Callable[[Any, int, tuple[Any, ...], dict[str, Any]], Any]
_ACTIVE = threading.local()
_LOCK = threading.Lock()


class TemporaryForward:
    """Stands in for the method `forward` of a module: in threads within `replaced`, it calls their function."""

    def __init__(self, module: Any, number: int) -> None:
        self.module, self.number, self.users = module, number, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do what the method does, or what the thread has asked for."""
        run = getattr(_ACTIVE, "run", None)
        if run is None:
            return type(self.module).forward(self.module, *args, **kwargs)
        return run(self.module, self.number, args, kwargs)


def is_replaceable(module: Any) -> bool:
    """Whether no other library has replaced the method of a module, for example to offload or to compile it."""
    forward = vars(module).get("forward")
    return isinstance(forward, TemporaryForward | None) and module._compiled_call_impl is None


@contextmanager
def replaced(modules: Sequence[tuple[int, Any]], run: Run) -> Iterator[None]:
    """Within it, this thread calls a function in place of the methods of modules, given with their numbers."""
    with _LOCK:
        for number, module in modules:
            # Another thread may have put a stand-in there.
            module.__dict__.setdefault("forward", TemporaryForward(module, number)).users += 1
    _ACTIVE.run = run
    try:
        yield
    finally:
        _ACTIVE.run = None
        with _LOCK:
            for _, module in modules:
                forward = module.__dict__["forward"]
                forward.users -= 1
                if not forward.users:
                    del module.__dict__["forward"]
