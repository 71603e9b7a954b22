"""Published items keep their SIDs, and on_collision says what happens to items with the same codes."""

import numpy as np
import pytest

import hedgerow as hr

RNG = np.random.default_rng(0)
OLD = RNG.normal(size=(200, 8)).astype(np.float32)
NEW = RNG.normal(size=(20, 8)).astype(np.float32)
IDS = [f"i{row}" for row in range(220)]


@pytest.fixture(scope="module")
def separated() -> hr.SemanticIds:
    return hr.semantic_ids(OLD, levels=2, codebook_sizes=8, deduplication_codes=64)


def published(found: hr.SemanticIds, *, as_index: bool) -> hr.Catalog | hr.TrieIndex:
    catalog = hr.Catalog(found.sids, codebook_sizes=found.codebook_sizes, item_ids=IDS[: len(found)])
    return hr.build_index(catalog) if as_index else catalog


def distinct(sids: np.ndarray) -> int:
    return len(np.unique(sids, axis=0))


@pytest.mark.parametrize("as_index", [True, False])
def test_items_of_keep_keep_their_sids_and_new_ones_get_free_ones(separated, as_index):
    keep = published(separated, as_index=as_index)
    order = RNG.permutation(220)
    vectors = np.concatenate([OLD, NEW])[order]
    found = separated.quantizer.assign(vectors, ids=[IDS[row] for row in order], keep=keep)
    assert found.codebook_sizes == separated.codebook_sizes
    by_row = np.empty((220, 3), int)
    by_row[order] = found.sids
    assert (by_row[:200] == separated.sids).all()
    assert (by_row[200:, :2] == separated.quantizer.encode(NEW)).all()
    assert distinct(found.sids) == 220


def test_sids_of_published_items_that_are_not_assigned_again_stay_taken(separated):
    keep = published(separated, as_index=True)
    rest = np.arange(0, 200, 3)
    found = separated.quantizer.assign(
        np.concatenate([OLD[rest], NEW]), ids=[*(IDS[row] for row in rest), *IDS[200:]], keep=keep
    )
    assert (found.sids[: len(rest)] == separated.sids[rest]).all()
    assert distinct(np.concatenate([separated.sids, found.sids[len(rest) :]])) == 220
    both = separated.quantizer.assign(NEW, ids=IDS[200:], keep=keep, taken=found.sids[len(rest) :])
    assert distinct(np.concatenate([separated.sids, found.sids[len(rest) :], both.sids])) == 240


def test_without_deduplication_codes_published_items_keep_their_sids():
    found = hr.semantic_ids(OLD, levels=2, codebook_sizes=8)
    moved = found.sids.copy()
    moved[:, 1] = (moved[:, 1] + 1) % 8
    keep = hr.Catalog(moved, codebook_sizes=8, item_ids=IDS[:200])
    again = found.quantizer.assign(np.concatenate([OLD, NEW]), ids=IDS, keep=keep)
    assert (again.sids[:200] == moved).all()
    assert (again.sids[200:] == found.quantizer.encode(NEW)).all()


@pytest.mark.parametrize(("levels", "method"), [(1, "residual"), (2, "residual"), (2, "product"), (2, "opq")])
@pytest.mark.parametrize("limit", [1, 2])
def test_nearest_moves_the_other_items_of_a_sid_to_the_nearest_codes_with_room(levels, method, limit):
    sizes = [64 * (levels == 1) or 8, 64][:levels]
    options = {"codebook_sizes": sizes, "method": method, "on_collision": "nearest"}
    vectors = OLD if levels == 2 else OLD[: 60 * limit]
    found = hr.semantic_ids(vectors, **options, items_per_sid=limit)
    quantizer = found.quantizer
    codes = quantizer.encode(vectors)
    assert found.codebook_sizes == tuple(sizes)
    assert (found.sids[:, :-1] == codes[:, :-1]).all()
    assert np.unique(found.sids, axis=0, return_counts=True)[1].max() <= limit
    expected = codes.copy()
    counts: dict[tuple[int, ...], int] = {}
    movers = []
    for row, sid in enumerate(map(tuple, codes.tolist())):
        if counts.get(sid, 0) < limit:
            counts[sid] = counts.get(sid, 0) + 1
        else:
            movers.append(row)
    for row in movers:
        every = np.tile(codes[row], (len(quantizer.codebooks[-1]), 1))
        every[:, -1] = np.arange(len(every))
        distances = np.square(vectors[row] - quantizer.decode(every).astype(float)).sum(1)
        for code in np.argsort(distances):
            sid = (*codes[row, :-1].tolist(), int(code))
            if counts.get(sid, 0) < limit:
                counts[sid] = counts.get(sid, 0) + 1
                expected[row, -1] = code
                break
    assert movers or levels == limit == 1
    assert found.sids.tolist() == expected.tolist()


def test_nearest_avoids_taken_and_kept_sids():
    found = hr.semantic_ids(OLD, codebook_sizes=[8, 64], on_collision="nearest")
    new = found.quantizer.assign(NEW, taken=found, on_collision="nearest")
    assert distinct(np.concatenate([found.sids, new.sids])) == 220
    keep = published(found, as_index=True)
    every = found.quantizer.assign(np.concatenate([OLD, NEW]), ids=IDS, keep=keep, on_collision="nearest")
    assert (every.sids[:200] == found.sids).all()
    assert (every.sids[200:] == new.sids).all()
    assert (found.quantizer.assign(OLD, on_collision="nearest").sids == found.sids).all()


def test_separate_is_the_word_for_deduplicate(separated):
    same = hr.semantic_ids(OLD, levels=2, codebook_sizes=8, deduplication_codes=64, on_collision="separate")
    assert (same.sids == separated.sids).all()
    one = hr.semantic_ids(OLD, levels=2, codebook_sizes=8, on_collision="separate")
    assert one.codebook_sizes == hr.semantic_ids(OLD, levels=2, codebook_sizes=8, deduplicate=True).codebook_sizes
    kept = hr.semantic_ids(OLD, levels=2, codebook_sizes=8, on_collision="keep")
    assert (kept.sids == separated.sids[:, :2]).all()


def test_full_prefixes_are_refused_by_row():
    quantizer = hr.Quantizer("residual", (np.array([[0.0], [10.0]]), np.array([[0.0], [1.0]])), (2, 2))
    assert quantizer.assign([[0.0], [0.1], [10.0]], on_collision="nearest").sids.tolist() == [[0, 0], [0, 1], [1, 0]]
    with pytest.raises(hr.ArgumentError, match=r"row 2: all 2 codes of the last level after 0 have 1 items"):
        quantizer.assign([[0.0], [0.1], [0.2]], on_collision="nearest")
    four = quantizer.assign([[0.0]] * 4, on_collision="nearest", items_per_sid=2)
    assert four.sids.tolist() == [[0, 0], [0, 0], [0, 1], [0, 1]]
    keep = hr.Catalog([[0, 0], [0, 1]], codebook_sizes=2, item_ids=["a", "b"])
    with pytest.raises(hr.ArgumentError, match=r"row 1: all 2 codes"):
        quantizer.assign([[0.0], [0.0]], ids=["a", "z"], keep=keep, on_collision="nearest")
    few = quantizer.deduplicating(2)
    keep = hr.Catalog([[0, 0, 0], [0, 0, 1]], codebook_sizes=2, item_ids=["a", "b"])
    with pytest.raises(hr.ArgumentError, match=r"row 1: 3 items have the codes 0, 0"):
        few.assign([[0.0], [0.0]], ids=["a", "z"], keep=keep)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ids": IDS[:200]}, "ids= and keep= go together"),
        ({"keep": hr.Catalog([[0, 0, 0]], codebook_sizes=[8, 8, 64], item_ids=["a"])}, "go together"),
        ({"ids": IDS[:200], "keep": hr.Catalog([[0, 0, 0]], codebook_sizes=[8, 8, 64])}, "with item ids"),
        ({"ids": IDS[:200], "keep": [[0, 0, 0]]}, "keep must be an index"),
        ({"ids": IDS[:3], "keep": hr.Catalog([[0, 0, 0]], codebook_sizes=[8, 8, 64], item_ids=["a"])}, "3 entries"),
        ({"ids": ["x"] * 200, "keep": hr.Catalog([[0] * 3], codebook_sizes=[8, 8, 64], item_ids=["a"])}, "'x' appears"),
        (
            {"ids": IDS[:200], "keep": hr.Catalog([[0] * 3], codebook_sizes=[8, 8, 64], item_ids=[7])},
            "cannot be converted",
        ),
        ({"ids": IDS[:200], "keep": hr.Catalog([[0, 0, 0]], codebook_sizes=64, item_ids=["a"])}, "codebook_sizes"),
        ({"on_collision": "nearest"}, "this quantizer has deduplication codes"),
        ({"on_collision": "keep"}, "this quantizer has deduplication codes"),
        ({"on_collision": "closest"}, "on_collision must be one of"),
        ({"items_per_sid": 2}, "items_per_sid is for on_collision='nearest'"),
        ({"items_per_sid": 0}, "items_per_sid must be a positive integer"),
    ],
)
def test_rejects_arguments_that_do_not_fit(separated, options, words):
    with pytest.raises(hr.HedgerowError) as caught:
        separated.quantizer.assign(OLD, **options)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"on_collision": "nearest", "deduplicate": True}, "cannot be combined"),
        ({"on_collision": "keep", "deduplication_codes": 4}, "cannot be combined"),
        ({"on_collision": "x"}, "on_collision must be one of"),
        ({"items_per_sid": 2}, "items_per_sid"),
        ({"items_per_sid": 1.5, "on_collision": "nearest"}, "items_per_sid"),
    ],
)
def test_semantic_ids_rejects_arguments_before_the_training(options, words):
    with pytest.raises(hr.ArgumentError) as caught:
        hr.semantic_ids(OLD, levels=2, codebook_sizes=8, **options, progress=lambda *_: pytest.fail("it trains"))
    assert words in str(caught.value)


def test_a_quantizer_without_deduplication_codes_does_not_separate():
    quantizer = hr.semantic_ids(OLD, levels=2, codebook_sizes=8).quantizer
    with pytest.raises(hr.ArgumentError, match="has no deduplication codes"):
        quantizer.assign(OLD, on_collision="separate")
    with pytest.raises(hr.ArgumentError, match="on_collision='nearest'"):
        quantizer.assign(OLD, taken=quantizer.assign(OLD))
