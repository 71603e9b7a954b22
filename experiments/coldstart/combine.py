"""Cold items by content, without and with training on histories, and blends, with the code of `hedgerow evaluate`.

The weights of the blends were tuned on the tuning split of 5 %, with `--tuning`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console

from coldstart.content import text_embeddings
from coldstart.learned import embeddings_name
from coldstart.split import Split, split_of
from coldstart.tables import Shop, load
from hedgerow import training
from hedgerow.training import Blend, Evaluation, Questions, Ranker

NEAREST = 12  # a power so large that the nearest item of a history decides almost alone
WEIGHTS = (
    {"text": 0.9, "embedding": 0.1},
    {"text": 0.3, "embedding": 0.1, "learned": 0.6},
)


def rankers_of(shop: Shop, split: Split, texts: np.ndarray, learned: list[np.ndarray]) -> dict[str, Ranker]:
    """The rankers by content.

    Args:
        shop: the items.
        split: the split.
        texts: float32 [N, D], the embeddings of the texts.
        learned: learned embeddings of several seeds; they are joined, which averages their cosines.
    """
    warm = split.known & ~split.cold
    centred = texts - texts[warm].mean(axis=0)
    rankers: dict[str, Ranker] = {
        "nearest embedding": training.content_knn(centred, power=NEAREST),
        "embedding": training.content_knn(centred),
        "text": training.content_knn(training.text_vectors(shop.texts), power=2),
    }
    if learned:
        rankers["learned"] = training.content_knn(np.concatenate(learned, axis=1))
    return rankers


def evaluated(shop: Shop, split: Split, rankers: dict[str, Ranker], settings: dict[str, object]) -> Evaluation:
    """The evaluation of all rankers and blends for the cold questions of a split, among its cold items."""
    blends = {" + ".join(names): Blend(rankers, names) for names in WEIGHTS if set(names) <= set(rankers)}
    # Items that do not exist in a tuning split are no candidates either.
    existing = [*split.training, np.flatnonzero(~split.cold)]
    facts = settings | {"weights": WEIGHTS}
    count = len(shop.ids)
    return training.evaluate_rankers({**rankers, **blends}, asked(split), existing, count, among="cold", settings=facts)


def asked(split: Split) -> Questions:
    """The cold questions of a split."""
    return Questions(split.test.histories, split.test.targets, np.arange(len(split.test)))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the embeddings, from learned.py")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent, help="folder of the results")
    parser.add_argument("--cold", type=float, nargs="+", default=[0.02, 0.05])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--tuning", action="store_true", help="use the split for choices, and tune the weights")
    args = parser.parse_args()
    shop, console = load(args.data), Console()
    texts = text_embeddings(shop, args.out / f"{args.data.name}.npy")
    for share in args.cold:
        split = split_of(shop, share, tuning=args.tuning)
        files = [args.out / embeddings_name(share, tuning=args.tuning, seed=seed) for seed in args.seeds]
        seeds = [seed for seed, file in zip(args.seeds, files, strict=True) if file.exists()]
        rankers = rankers_of(shop, split, texts, [np.load(file) for file in files if file.exists()])
        found = evaluated(shop, split, rankers, {"cold": share, "tuning": args.tuning, "seeds": seeds})
        found.save_csv(args.results / f"content-{100 * share:g}{'-tuning' if args.tuning else ''}.csv")
        console.print(f"newest {100 * share:g} %: {found.rows[0].questions:,} users, seeds {seeds}")
        for row in found.rows:
            figures = [f"{name} {row.metrics[name]:.2%}" for name in ("Recall@1", "Recall@10", "NDCG@10")]
            console.print(f"  {row.method:28} {', '.join(figures)}", highlight=False, soft_wrap=True)
        for names in WEIGHTS:
            if args.tuning and set(names) <= set(rankers):
                tuned = Blend.tuned(rankers, asked(split), names=tuple(names), among=split.cold)
                console.print(f"  tuned: {dict(tuned.weights)}", highlight=False)


if __name__ == "__main__":
    main()
