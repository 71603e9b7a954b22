"""Embeddings of texts on a CPU: batches of equally long texts, each on one thread, several at once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import numpy as np

from hedgerow._cores import usable_cores
from hedgerow.index.build import Progress

# The number of tokens of a batch: from here on, a larger batch is slower, because its arrays do not fit the cache.
TOKENS = 1 << 10
# The number of texts that are split into tokens at once.
BLOCK = 1 << 12


def encode_on_cpu(
    model: Any, texts: Sequence[str], batch_size: int, *, normalize: bool, progress: Progress
) -> np.ndarray:
    """Embed texts with a sentence-transformers model on a CPU.

    Threads that share a batch wait for each other after every operation, which is slow if other processes use the
    cores. Here each batch has one thread. The batches depend on the texts and `batch_size` alone, so the result does
    not depend on the number of threads.

    Args:
        model: a `SentenceTransformer`.
        texts: N texts, at least 1.
        batch_size: the maximum number of texts in a batch.
        normalize: scale each embedding to length 1.
        progress: called as ``progress("embed", done, N)``.

    Returns:
        float32 [N, D].
    """
    import torch

    batches = _batches(_lengths(model, texts), batch_size)
    threads = torch.get_num_threads()

    def encode(rows: np.ndarray) -> np.ndarray:
        options = {"batch_size": len(rows), "normalize_embeddings": normalize, "show_progress_bar": False}
        return model.encode([texts[row] for row in rows], convert_to_numpy=True, **options)

    workers = max(1, min(threads, usable_cores(), len(batches)))
    pool = ThreadPoolExecutor(workers, "hedgerow-embed", torch.set_num_threads, (1,))
    try:
        # The first batch runs alone, because it changes the settings of the tokenizer, which all threads share.
        first = pool.submit(encode, batches[0]).result()
        vectors = np.empty((len(texts), first.shape[1]), first.dtype)
        vectors[batches[0]], done = first, len(first)
        progress("embed", done, len(texts))
        rows_of = {pool.submit(encode, rows): rows for rows in batches[1:]}
        for future in as_completed(rows_of):
            vectors[rows_of[future]] = future.result()
            done += len(rows_of[future])
            progress("embed", done, len(texts))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
    return vectors


def _batches(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """The rows of each batch, the longest texts first."""
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        count = max(1, min(batch_size, TOKENS // max(1, int(lengths[order[start]]))))
        batches.append(order[start : start + count])
        start += count
    return batches


def _lengths(model: Any, texts: Sequence[str]) -> np.ndarray:
    """The number of tokens [N] of each text; of characters, for models with a tokenizer of another kind."""
    from transformers import PreTrainedTokenizerBase

    tokenizer = getattr(model, "tokenizer", None)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return np.array([len(text) for text in texts])
    options = {"truncation": True, "max_length": model.max_seq_length, "return_attention_mask": False}
    lengths = []
    for start in range(0, len(texts), BLOCK):
        lengths += map(len, tokenizer(list(texts[start : start + BLOCK]), **options)["input_ids"])
    return np.array(lengths)
