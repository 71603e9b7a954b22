"""Measure the CPU time of embedding texts: one call of sentence-transformers, and `hedgerow.embed_texts`.

``python benchmarks/embed_texts.py items.parquet --column text``: CPU seconds per 1,000 texts, which other processes
affect less than the time on the clock, and the largest difference of the embeddings.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

import hedgerow as hr
from hedgerow.semantic.embed import _loaded


def measured(texts: list[str], encode: Callable[[], Any]) -> tuple[str, np.ndarray]:
    """Run `encode`; its times as text, and its result."""
    cpu, started = time.process_time(), time.perf_counter()
    vectors = encode()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - started
    return f"{1000 * cpu / len(texts):.2f} CPU seconds per 1,000 texts, {wall:.1f} s in all", vectors


def main() -> None:
    """Measure, and print one line per method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", help="a Parquet file")
    parser.add_argument("--column", default="text", help="the column of texts")
    parser.add_argument("--items", type=int, default=1000, help="the number of texts")
    parser.add_argument("--threads", type=int, help="threads of PyTorch")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    texts = pq.read_table(options.file, columns=[options.column])[0].to_pylist()[: options.items]
    model = _loaded(None, "cpu")
    hr.embed_texts(texts[:64], model=model)
    settings = {"batch_size": 64, "normalize_embeddings": True, "show_progress_bar": False}
    before, expected = measured(texts, lambda: model.encode(texts, **settings))
    after, found = measured(texts, lambda: hr.embed_texts(texts, model=model))
    print(f"sentence-transformers, batches of 64: {before}")
    print(f"hedgerow.embed_texts: {after}; largest difference {np.abs(expected - found).max():.1e}")


if __name__ == "__main__":
    main()
