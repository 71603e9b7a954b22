"""SidLoss: the loss of SIDs among the codes that may follow."""

import copy
import pickle

import numpy as np
import pytest

import hedgerow as hr

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from hedgerow.training import SidLoss  # noqa: E402
from hedgerow.training.loss import loss_of_levels  # noqa: E402

RNG = np.random.default_rng(0)
CATALOG = hr.Catalog(RNG.integers(0, 6, (50, 3)), codebook_sizes=6, item_ids=np.arange(50))
INDEX = hr.build_index(CATALOG)


def logits_of(count: int, sizes=(6, 6, 6)) -> list:
    rng = np.random.default_rng(1)
    return [torch.tensor(rng.normal(size=(count, size)), requires_grad=True) for size in sizes]


def test_is_the_mean_log_probability():
    logits, sids = logits_of(8), CATALOG.sids[:8]
    for normalize in ("allowed", "codes"):
        loss = SidLoss(INDEX, normalize=normalize, temperature=0.5)(logits, sids)
        found = hr.log_probs(INDEX.to("torch"), logits, sids, normalize=normalize, temperature=0.5)
        torch.testing.assert_close(loss, -found.sum(1).mean())
    targets = torch.tensor(sids)
    expected = sum(torch.nn.functional.cross_entropy(own, targets[:, level]) for level, own in enumerate(logits))
    torch.testing.assert_close(SidLoss(INDEX, normalize="codes")(logits, targets), expected)


def test_gradients():
    loss, sids = SidLoss(INDEX), CATALOG.sids[:5]
    assert torch.autograd.gradcheck(lambda *logits: loss(logits, sids), logits_of(5))


def test_gradients_of_ragged_sids():
    index = hr.build_index(hr.Catalog([[0], [0, 1], [0, 1, 1], [2]], codebook_sizes=3, ragged=True))
    loss, sids = SidLoss(index), [[0, -1, -1], [0, 1, -1], [0, 1, 1], [2, -1, -1]]
    logits = logits_of(4, index.codebook_sizes)
    assert torch.autograd.gradcheck(lambda *given: loss(given, sids), logits)
    found = hr.log_probs(index.to("torch"), logits, sids)
    # At the last level, two SIDs have a code or end there.
    expected = -(found[:, 0].mean() + found[:, 1].mean() + found[1:3, 2].mean())
    torch.testing.assert_close(loss(logits, sids), expected)


@pytest.mark.parametrize("width", [0, 2])
@pytest.mark.parametrize("ragged", [False, True])
def test_sequences_of_items(width, ragged):
    """The loss of a batch of sequences is that of their items."""
    sids = [[0], [0, 1], [0, 1, 1], [2], [2, 2, 0]] if ragged else [[0, 1, 2], [2, 0, 1], [2, 2, 0], [2, 2, 2]]
    index = hr.build_index(hr.Catalog(sids, codebook_sizes=3, ragged=ragged))
    ends = index.end_codes
    written = [[*sid, *ends[len(sid) : len(sid) + 1]] for sid in sids]
    rows = [[0, 2, 3], [1], [len(sids) - 1, 0]]
    levels = np.full((3, 30), -1)
    codes = np.zeros((3, 30), int)
    for number, row in enumerate(rows):
        at = 0
        for item in row:
            at += width
            length = len(written[item])
            levels[number, at : at + length] = np.arange(length)
            codes[number, at : at + length] = written[item]
            at += length
    levels, codes = torch.tensor(levels), torch.tensor(codes)
    every = [torch.randn(3, 30, size, dtype=torch.float64) for size in index.codebook_sizes]
    logits = [torch.zeros(6, size, dtype=torch.float64) for size in index.codebook_sizes]
    asked = [item for row in rows for item in row]
    for level, own in enumerate(every):
        present = [number for number, item in enumerate(asked) if len(written[item]) > level]
        logits[level][present] = own[levels == level]

    def chosen(positions, level):
        return every[level][positions]

    padded = [sids[item] + [-1] * (3 - len(sids[item])) for item in asked]
    found = loss_of_levels(chosen, codes, levels, 3, SidLoss(index))
    torch.testing.assert_close(found.double(), SidLoss(index)(logits, padded), rtol=1e-5, atol=1e-5)
    found = loss_of_levels(chosen, codes, levels, 3, None)
    torch.testing.assert_close(found, loss_of_levels(chosen, codes, levels, 3, SidLoss(index, normalize="codes")))


def test_copies_and_versions(tmp_path):
    loss, logits, sids = SidLoss(INDEX), logits_of(4), CATALOG.sids[:4]
    expected = loss(logits, sids)
    for again in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        torch.testing.assert_close(again(logits, sids), expected)
    assert not list(loss.parameters())
    assert loss.state_dict() == {}
    live = hr.LiveIndex.create(tmp_path / "items.live", INDEX)
    torch.testing.assert_close(SidLoss(live)(logits, sids), expected)
    live.remove(list(range(10, 30)))
    assert SidLoss(live)(logits, sids) < expected
    kept = [*CATALOG.sids[:10].tolist(), *CATALOG.sids[30:].tolist()]
    with pytest.raises(hr.ArgumentError, match="row 0, level"):
        SidLoss(live)(logits_of(1), [next(sid for sid in CATALOG.sids[10:30].tolist() if sid not in kept)])


def test_sids_that_do_not_exist():
    missing = next(sid for sid in np.ndindex(6, 6, 6) if not INDEX.contains([sid]))
    with pytest.raises(hr.ArgumentError, match=r"row 1, level \d: the code has probability 0"):
        SidLoss(INDEX)(logits_of(2), [CATALOG.sids[0].tolist(), list(missing)])
    with pytest.raises(hr.ArgumentError, match="index must be"):
        SidLoss(CATALOG)  # type: ignore[arg-type]
