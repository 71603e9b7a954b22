"""Questions of later interactions, in a file of their own: against a brute-force evaluation, and the split by time."""

import math
from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pytest

import hedgerow as hr
from hedgerow.errors import ArgumentError

for package in ("torch", "transformers", "implicit"):
    pytest.importorskip(package)

from hedgerow.training import BlendSpec, Histories, evaluate, split_by_time  # noqa: E402

ITEMS, USERS, SPLIT = 60, 40, 5
INDEX = hr.build_index(
    hr.Catalog(
        np.stack([np.arange(ITEMS) // 10, np.arange(ITEMS) % 10], axis=1), item_ids=[f"i{n}" for n in range(ITEMS)]
    )
)


def rows() -> list[tuple[str, str, int]]:
    """Users with 1 to 9 interactions; some of them only before or only from SPLIT on."""
    rng = np.random.default_rng(3)
    found = []
    for user in range(USERS):
        times = np.sort(rng.choice(10, rng.integers(1, 10), replace=False))
        items = rng.choice(ITEMS, len(times), replace=False, p=np.arange(1, ITEMS + 1) / (ITEMS * (ITEMS + 1) / 2))
        found += [(f"u{user}", f"i{item}", int(time)) for item, time in zip(items, times, strict=True)]
    return found


ROWS = rows()


def histories(some, **changes) -> Histories:
    columns = dict(zip(("user", "item_id", "timestamp"), map(list, zip(*some, strict=True)), strict=True))
    return Histories.from_arrow(pa.table(columns | changes), INDEX)


BEFORE = histories([row for row in ROWS if row[2] < SPLIT])
LATER = histories([row for row in ROWS if row[2] >= SPLIT])


def test_metrics_equal_a_brute_force():
    found = evaluate(None, INDEX, BEFORE, later=LATER, ks=[1, 5, 10]).row("popularity").metrics
    counts = Counter(item for _, item, time in ROWS if time < SPLIT)
    seen, next_item = defaultdict(set), {}
    for user, item, time in sorted(ROWS, key=lambda row: row[2]):
        if time < SPLIT:
            seen[user].add(item)
        elif user in seen:
            next_item.setdefault(user, item)
    ranks = []
    for user, target in next_item.items():
        assert target not in seen[user]
        # Equal counts go by the row in the index.
        left = [item for item in INDEX.item_ids.to_pylist() if item not in seen[user]]
        ranks.append(sorted(left, key=lambda item: -counts[item]).index(target) + 1)
    assert 10 < len(ranks) < USERS
    for k in (1, 5, 10):
        assert found[f"Recall@{k}"].mean == pytest.approx(np.mean([rank <= k for rank in ranks]))
    ndcg = np.mean([1 / math.log2(rank + 1) if rank <= 10 else 0 for rank in ranks])
    assert found["NDCG@10"].mean == pytest.approx(ndcg)
    assert found["MRR@10"].mean == pytest.approx(np.mean([1 / rank if rank <= 10 else 0 for rank in ranks]))


def test_equals_a_split_by_time_of_one_file():
    split = split_by_time(histories(ROWS), validation=SPLIT, test=SPLIT)
    expected = evaluate(None, INDEX, split, users=20).table()
    assert evaluate(None, INDEX, BEFORE, later=LATER, users=20).table() == expected


def test_a_model_keeps_its_training_part():
    split = split_by_time(BEFORE, validation=3, test=4)
    found = evaluate(None, INDEX, split, later=LATER)
    assert found.settings["split"] == dict(split.method)
    assert found.settings["later"] == "given"
    # Counted in the training part; the history has all interactions.
    counts = np.bincount(np.concatenate(split.training), minlength=ITEMS)
    first = found.ranked["popularity"].items[:, 0]
    users = [u for u, user in enumerate(BEFORE.users.to_pylist()) if user in set(LATER.users.to_pylist())]
    for user, item in zip(users, first.tolist(), strict=True):
        left = np.setdiff1d(np.arange(ITEMS), BEFORE[user])
        assert item == left[np.argmax(counts[left])]


def test_from_files(tmp_path):
    for name, keep in (("before", lambda time: time < SPLIT), ("later", lambda time: time >= SPLIT)):
        lines = [",".join(map(str, row)) for row in ROWS if keep(row[2])]
        (tmp_path / f"{name}.csv").write_text("\n".join(["user,item_id,timestamp", *lines]))
    found = evaluate(None, INDEX, tmp_path / "before.csv", later=tmp_path / "later.csv")
    assert found.table() == evaluate(None, INDEX, BEFORE, later=LATER).table()
    assert found.settings["later"] == str(tmp_path / "later.csv")


@pytest.mark.parametrize(
    ("later", "options", "message"),
    [
        (histories([("x1", "i1", 9)]), {}, "none of the 1 users of the later interactions has a history.* 'x1'"),
        (
            BEFORE,
            {},
            r"users have later interactions that are earlier than the last one of their history: 'u\d+' at \d",
        ),
        (histories([(7, "i1", 9)]), {}, "later interactions are int64, and those of the histories string"),
        (histories([("u0", "i1", "2024-01-01")]), {}, "cannot be compared"),
        (LATER, {"part": "validation"}, "part='validation'"),
        (
            LATER,
            {"blends": [BlendSpec(("popularity", "item-knn"))]},
            "tuned on validation questions, and there are none",
        ),
    ],
)
def test_refusals(later, options, message):
    with pytest.raises(ArgumentError, match=message):
        evaluate(None, INDEX, BEFORE, later=later, **options)


def test_times_are_not_needed():
    both = [Histories(part.users, part.items, part.starts) for part in (BEFORE, LATER)]
    found = evaluate(None, INDEX, both[0], later=both[1])
    assert found.table() == evaluate(None, INDEX, BEFORE, later=LATER).table()
