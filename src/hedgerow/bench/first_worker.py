"""One process of `hedgerow bench first-call`: `python -m hedgerow.bench.first_worker METHOD STARTED INDEX [MODEL]`.

Prints JSON. The first part starts when the process does: STARTED is the time of the clock before it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BEAM_WIDTH = 50


def step_of(backend: str, path: str, lap: Callable[[str], None]) -> Callable[[], Any]:
    """A search of the index with random logits."""
    import numpy as np

    import hedgerow as hr

    if backend == "torch":
        import torch as framework
    elif backend == "jax":
        import jax.numpy as framework
    else:
        framework = np
    lap("import")
    index = hr.load_index(path)
    device_index = index.to(backend)
    lap("load")
    rng = np.random.default_rng(0)
    sizes = [level.codebook_size for level in device_index.levels]
    widths = [1] + [BEAM_WIDTH] * (len(sizes) - 1)
    shapes = zip(widths, sizes, strict=True)
    logits = [framework.asarray(rng.normal(size=(1, m, size)).astype(np.float32)) for m, size in shapes]

    def search() -> Any:
        beams = hr.init_beams(device_index, 1)
        for of_level in logits:
            beams = hr.step(device_index, beams, of_level, beam_width=BEAM_WIDTH)
        return beams

    if backend == "jax":
        import jax

        search = jax.jit(search)
    return lambda: index.results(search())[0].item_ids


def retriever(path: str, model: str, lap: Callable[[str], None]) -> Callable[[], Any]:
    """A search with a model."""
    import hedgerow as hr
    from hedgerow.hf.loading import load_retriever

    lap("import")
    loaded = load_retriever(Path(model), hr.load_index(path))
    lap("load")
    return lambda: loaded.retrieve(["a film about the sea"], beam_width=BEAM_WIDTH, k=10)[0].item_ids


def main() -> None:
    """Run the method of the arguments, and print the seconds of its parts."""
    method, started, path, *model = sys.argv[1:]
    seconds: dict[str, float] = {}
    last = float(started)

    def lap(part: str) -> None:
        nonlocal last
        now = time.time()
        seconds[part], last = now - last, now

    search = retriever(path, model[0], lap) if model else step_of(method, path, lap)
    found = search()
    lap("first")
    seconds["total"], seconds["cpu"] = last - float(started), time.process_time()
    if found != search():
        raise SystemExit(f"{method}: the second search has other items than the first")
    lap("second")
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
