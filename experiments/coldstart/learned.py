"""Embeddings of content that are trained on histories: items that the same users take have similar embeddings.

The content of an item is a projection of the embedding of its text and of the words in it. A user is the weighted mean
of the contents of a history, times a matrix; the training maximizes the probability of the next item among all warm
items. The embedding of an item is its content times that matrix. No parameter belongs to an item, so cold items have
embeddings of the same kind.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor, nn
from torch.nn import functional

from coldstart.content import text_embeddings
from coldstart.split import Split, split_of
from coldstart.tables import Shop, load

WIDTH = 128  # of the words, and of the text
EPOCHS, BATCH, RATE = 3, 1024, 3e-3
SCALE, DROPOUT, LONGEST = 20.0, 0.1, 6


@dataclass(frozen=True)
class Words:
    """The words of N texts with their TF-IDF weights, as the rows of a sparse matrix."""

    starts: np.ndarray
    words: Tensor
    weights: Tensor

    def bag(self, rows: np.ndarray, table: Tensor) -> Tensor:
        """The weighted sums of the rows of `table` for the words of some texts."""
        counts = self.starts[rows + 1] - self.starts[rows]
        flat = np.concatenate([np.zeros(0, np.int64), *map(np.arange, self.starts[rows], self.starts[rows + 1])])
        offsets = torch.from_numpy(np.cumsum(counts) - counts)
        places = torch.from_numpy(flat)
        return functional.embedding_bag(
            self.words[places], table, offsets, mode="sum", per_sample_weights=self.weights[places]
        )


class Tower(nn.Module):
    """The projection of content, which starts from the main axes of the words and of the texts."""

    def __init__(self, words: Words, axes: np.ndarray, texts: np.ndarray, warm: np.ndarray) -> None:
        super().__init__()
        self.bags, self.texts = words, torch.from_numpy(texts)
        self.table = nn.Parameter(torch.from_numpy(np.ascontiguousarray(axes.T)).float())
        main = np.linalg.svd(texts[warm][:4000], full_matrices=False)[2][:WIDTH]
        self.text = nn.Parameter(torch.from_numpy(np.ascontiguousarray(main.T)))
        self.mixed = nn.Parameter(torch.eye(axes.shape[0] + self.text.shape[1]))
        self.decay = nn.Parameter(torch.tensor(0.75))

    def forward(self, rows: np.ndarray) -> Tensor:
        """The contents of some items, [R, D] of length 1."""
        parts = self.bags.bag(rows, self.table), self.texts[torch.from_numpy(rows)] @ self.text
        return functional.normalize(torch.cat([functional.normalize(part, dim=1) for part in parts], dim=1), dim=1)

    def users(self, items: Tensor, histories: list[np.ndarray], places: np.ndarray) -> Tensor:
        """The weighted means of the items of histories, times the matrix."""
        lengths = [len(history) for history in histories]
        rows = torch.from_numpy(np.repeat(np.arange(len(histories)), lengths))
        ages = torch.from_numpy(np.concatenate([np.arange(length)[::-1] for length in lengths]).astype(np.float32))
        weights = self.decay.clamp(0.1, 1) ** ages
        taken = items[torch.from_numpy(places[np.concatenate(histories)])] * weights[:, None]
        sums = torch.zeros(len(histories), items.shape[1]).index_add(0, rows, taken)
        return sums / torch.zeros(len(histories)).index_add(0, rows, weights)[:, None] @ self.mixed


def learned_embeddings(
    shop: Shop, split: Split, texts: np.ndarray, *, seed: int = 0, epochs: int = EPOCHS
) -> np.ndarray:
    """Train embeddings on the training data of a split.

    Args:
        shop: the items.
        split: the split.
        texts: float32 [N, D], the embeddings of the texts.
        seed: the seed.
        epochs: the number of passes.

    Returns:
        float32 [N, D], of length 1.
    """
    torch.manual_seed(seed)
    random, warm = np.random.default_rng(seed), np.flatnonzero(split.known & ~split.cold)
    centred = texts - texts[warm].mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True).clip(1e-6)
    vectorizer = TfidfVectorizer(sublinear_tf=True).fit([shop.texts[row] for row in warm])
    matrix: Any = vectorizer.transform(shop.texts)
    matrix = matrix.tocsr()
    axes: Any = TruncatedSVD(min(WIDTH, matrix.shape[1] - 1), random_state=seed).fit(matrix[warm]).components_
    words = Words(
        matrix.indptr.astype(np.int64), torch.from_numpy(matrix.indices).long(), torch.from_numpy(matrix.data).float()
    )
    tower = Tower(words, axes, centred, warm)
    groups = [([tower.table], RATE), ([tower.text, tower.mixed], RATE / 3), ([tower.decay], 1e-2)]
    optimizer = torch.optim.Adam([{"params": params, "lr": rate} for params, rate in groups])
    pairs = [
        (items[max(0, place - LONGEST) : place], int(items[place]))
        for items in split.training
        for place in range(1, len(items))
    ]
    counts = np.bincount(np.concatenate(split.training), minlength=len(shop.ids))
    popular = torch.from_numpy(np.log(counts + 1.0)).float()
    for epoch in range(epochs):
        order = random.permutation(len(pairs))
        for chosen in track(np.array_split(order, max(1, len(pairs) // BATCH)), f"epoch {epoch + 1}", transient=True):
            loss = _loss(tower, [pairs[row] for row in chosen], warm, popular)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return functional.normalize(tower(np.arange(len(shop.ids))) @ tower.mixed, dim=1).numpy()


def _loss(tower: Tower, pairs: list[tuple[np.ndarray, int]], warm: np.ndarray, popular: Tensor) -> Tensor:
    """The cross-entropy of the next items among all warm items."""
    histories, targets = [history for history, _ in pairs], np.array([target for _, target in pairs])
    places = np.zeros(int(warm.max()) + 1, np.int64)
    places[warm] = np.arange(len(warm))
    items = functional.dropout(tower(warm), DROPOUT)
    # With the popularity as a bias, the embeddings need not express it.
    logits = SCALE * tower.users(items, histories, places) @ items.T + popular[torch.from_numpy(warm)]
    return functional.cross_entropy(logits, torch.from_numpy(places[targets]))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with items.parquet and interactions.parquet")
    parser.add_argument("--out", type=Path, required=True, help="folder of the embeddings")
    parser.add_argument("--cold", type=float, default=0.02, help="share of the items that are cold")
    parser.add_argument("--tuning", action="store_true", help="use the split for choices")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    shop = load(args.data)
    split = split_of(shop, args.cold, tuning=args.tuning)
    texts = text_embeddings(shop, args.out / f"{args.data.name}.npy")
    path = args.out / embeddings_name(args.cold, tuning=args.tuning, seed=args.seed)
    np.save(path, learned_embeddings(shop, split, texts, seed=args.seed, epochs=args.epochs))
    print(path)


def embeddings_name(share: float, *, tuning: bool, seed: int) -> str:
    """The name of the file of learned embeddings."""
    return f"learned-{100 * share:g}{'-tuning' if tuning else ''}-{seed}.npy"


if __name__ == "__main__":
    main()
