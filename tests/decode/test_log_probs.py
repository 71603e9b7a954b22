"""hr.log_probs, against the oracle and against autograd through brute force."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import BACKENDS, FakeModel, array_of, catalogs, dense_levels_of

import hedgerow as hr
from hedgerow.decode.ops import to_numpy
from hedgerow.decode.oracle import oracle_search

pytestmark = pytest.mark.usefixtures("layout")

INF = float("inf")


def logits_along(model: FakeModel, sids: list[list[int]]) -> list[np.ndarray]:
    """The logits [B, C] of each level, after the codes of one SID per request."""
    levels = range(len(model.sizes))
    return [np.stack([model._logits(0, tuple(sid[:level])) for sid in sids]) for level in levels]


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_oracle(backend):
    pytest.importorskip(backend)

    @settings(max_examples=8 if backend == "jax" else 100)
    @given(
        catalog=catalogs(),
        normalize=st.sampled_from(["codes", "allowed", None]),
        temperature=st.sampled_from([1.0, 0.7]),
        dense=st.sampled_from(["auto", "all", "none"]),
        kept=st.randoms(use_true_random=False),
    )
    def check(catalog, normalize, temperature, dense, kept):
        temperature = 1.0 if normalize is None else temperature
        mask = np.array([kept.random() < 0.7 for _ in range(len(catalog))], bool)
        index = hr.build_index(catalog, dense_levels=dense_levels_of(dense, catalog.num_levels))
        model = FakeModel(catalog.codebook_sizes)
        allowed = mask if mask.any() else np.ones(len(catalog), bool)
        sids = [tuple(sid) for sid in catalog.sids.tolist()]
        expected = dict(
            oracle_search(
                *(sids, model.logits_of(0), catalog.num_levels, len(sids) + 1, normalize, allowed),
                temperature=temperature,
            )
        )
        random = np.random.default_rng(0)
        asked = [list(sid) for sid in sids[:20]] + [
            [int(random.integers(size)) for size in catalog.codebook_sizes] for _ in range(4)
        ]
        found = hr.log_probs(
            index.to(backend),
            [array_of(backend, logits) for logits in logits_along(model, asked)],
            array_of(backend, np.array(asked)),
            normalize=normalize,
            temperature=temperature,
            constraints=index.constraint(ids=np.flatnonzero(allowed)),
        )
        sums = to_numpy(found).astype(np.float64).sum(1)
        np.testing.assert_allclose(sums, [expected.get(tuple(sid), -INF) for sid in asked], rtol=1e-5, atol=1e-5)

    check()


@pytest.mark.parametrize("backend", BACKENDS)
def test_probabilities_of_all_sids_add_up_to_one(backend):
    pytest.importorskip(backend)
    catalog = hr.Catalog(np.random.default_rng(0).integers(0, 9, (60, 3)), codebook_sizes=9, item_ids=np.arange(60))
    index = hr.build_index(catalog)
    model, sids = FakeModel((9, 9, 9)), index.sids()
    logits = [array_of(backend, array) for array in logits_along(model, sids.tolist())]
    found = hr.log_probs(index.to(backend), logits, sids)
    assert np.exp(to_numpy(found).sum(1)).sum() == pytest.approx(1, rel=1e-5)
    rules = {"constraints": index.constraint(ids=np.arange(40)), "exclude": [[3, 4, 5]] * len(sids)}
    found = np.exp(to_numpy(hr.log_probs(index.to(backend), logits, sids, **rules)).sum(1))
    assert found.sum() == pytest.approx(1, rel=1e-5)
    kept = {tuple(sid) for sid in catalog.sids[[row for row in range(40) if row not in (3, 4, 5)]].tolist()}
    assert {tuple(sid) for sid in sids[found > 0].tolist()} == kept


@pytest.mark.parametrize("backend", BACKENDS)
def test_ragged_sids(backend):
    pytest.importorskip(backend)
    sids = [[0], [0, 1], [0, 1, 1], [2]]
    index = hr.build_index(hr.Catalog(sids, codebook_sizes=3, ragged=True))
    rng = np.random.default_rng(0)
    logits = [rng.normal(size=(4, size)).astype(np.float32) for size in index.codebook_sizes]
    padded = [sid + [-1] * (3 - len(sid)) for sid in sids]
    arrays = [array_of(backend, array) for array in logits]
    found = to_numpy(hr.log_probs(index.to(backend), arrays, padded))
    ends = [[code if code >= 0 else index.end_codes[level] for level, code in enumerate(sid)] for sid in padded]
    assert (to_numpy(hr.log_probs(index.to(backend), arrays, array_of(backend, np.array(ends)))) == found).all()

    def softmax(row, level, codes):
        logits_of = logits[level][row, codes].astype(float)
        return logits_of - math.log(np.exp(logits_of).sum())

    for row in range(4):
        assert found[row, 0] == pytest.approx(softmax(row, 0, [0, 2])[int(sids[row] == [2])], rel=1e-5)
    assert found[0, 1:].tolist() == pytest.approx([softmax(0, 1, [1, 3])[1], 0], rel=1e-5)
    assert found[2, 1:].tolist() == pytest.approx([softmax(2, 1, [1, 3])[0], softmax(2, 2, [1, 3])[0]], rel=1e-5)
    # [2] can only end.
    assert found[3, 1:].tolist() == [0, 0]


def brute_force(torch, catalog, logits, sids, normalize, temperature=1.0):
    """The same by enumeration of the allowed codes, one row at a time, in float64."""
    rows = []
    for row, sid in enumerate(sids):
        columns = []
        for level, code in enumerate(sid):
            allowed = sorted({s[level] for s in catalog.sids.tolist() if s[:level] == sid[:level]})
            own = logits[level][row] / temperature
            over = {"allowed": own[allowed], "codes": own}.get(normalize)
            columns.append(own[code] - (0 if over is None else torch.logsumexp(over, 0)))
        rows.append(torch.stack(columns))
    return torch.stack(rows)


@pytest.mark.parametrize("normalize", ["allowed", "codes", None])
@pytest.mark.parametrize("dense_levels", [[], [0, 1, 2]])
def test_gradients_equal_those_of_brute_force(normalize, dense_levels):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    catalog = hr.Catalog(rng.integers(0, 5, (40, 3)), codebook_sizes=5)
    index = hr.build_index(catalog, dense_levels=dense_levels).to("torch")
    sids = catalog.sids[:12].tolist()
    temperature = 1.0 if normalize is None else 0.6

    def logits():
        values = np.random.default_rng(2).normal(size=(3, 12, 5))
        return [torch.tensor(own, requires_grad=True) for own in values]

    weights = torch.tensor(rng.normal(size=(12, 3)))
    ours, theirs = logits(), logits()
    found = hr.log_probs(index, ours, sids, normalize=normalize, temperature=temperature)
    expected = brute_force(torch, catalog, theirs, sids, normalize, temperature)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own.grad, other.grad)
    options = {"normalize": normalize, "temperature": temperature}
    assert torch.autograd.gradcheck(lambda *given: hr.log_probs(index, given, sids, **options), logits())


def test_gradients_in_jax_equal_those_in_pytorch():
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    catalog = hr.Catalog(np.random.default_rng(1).integers(0, 5, (40, 2)), codebook_sizes=5)
    index, sids = hr.build_index(catalog), catalog.sids[:6]
    values = np.random.default_rng(2).normal(size=(2, 6, 5)).astype(np.float32)
    values[0, 0, 3] = -INF
    tensors = [torch.tensor(own, requires_grad=True) for own in values]
    hr.log_probs(index.to("torch"), tensors, sids).sum().backward()
    on_jax = index.to("jax")
    gradients = jax.jit(jax.grad(lambda logits: hr.log_probs(on_jax, logits, sids).sum()))(
        [jax.numpy.asarray(own) for own in values]
    )
    for own, tensor in zip(gradients, tensors, strict=True):
        np.testing.assert_allclose(own, tensor.grad, rtol=1e-5, atol=1e-6)


def test_impossible_sids_have_no_gradient():
    torch = pytest.importorskip("torch")
    index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [2, 2]]))
    logits = [torch.randn(4, 3, requires_grad=True) for _ in range(2)]
    sids = [[2, 1], [1, 0], [7, 0], [2, 0]]
    found = hr.log_probs(index.to("torch"), logits, sids, constraints=index.constraint(ids=[0, 2]))
    assert torch.isfinite(found).tolist() == [[True, False], [False, False], [False, False], [True, False]]
    assert (found[~torch.isfinite(found)] == -INF).all()
    found.sum().backward()
    for own in logits:
        assert torch.isfinite(own.grad).all()
    assert logits[1].grad.count_nonzero() == 0


def test_compiles():
    torch = pytest.importorskip("torch")
    index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [2, 2]])).to("torch")
    logits, sids = [torch.randn(2, 3) for _ in range(2)], torch.tensor([[2, 0], [0, 1]])
    compiled = torch.compile(lambda *given: hr.log_probs(index, given, sids), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*logits), hr.log_probs(index, logits, sids))


INDEX = hr.build_index(hr.Catalog([[0, 1], [2, 0]]))
ZEROS = [np.zeros((1, 3)), np.zeros((1, 2))]


@pytest.mark.parametrize(
    ("logits", "sids", "error", "match"),
    [
        (ZEROS[:1], [[0, 1]], hr.ArgumentError, "list of 2 arrays"),
        (ZEROS[0], [[0, 1]], hr.ArgumentError, "list of 2 arrays"),
        ([ZEROS[0], ZEROS[0]], [[0, 1]], hr.ArgumentError, r"logits of level 1 must be"),
        ([ZEROS[0], None], [[0, 1]], hr.ArgumentError, "None"),
        ([ZEROS[0], [[0.0, 0.0]]], [[0, 1]], hr.BackendError, "list"),
        (ZEROS, [[0, 1], [2, 0]], hr.ArgumentError, r"logits of level 0 must be .*\[2, 1, 3\]"),
        (ZEROS, [[0, 1, 1]], hr.ArgumentError, r"sids must be \[B, 2\]"),
        (ZEROS, [0, 1], hr.CatalogError, "sids must be"),
        (ZEROS, [[0.5, 1]], hr.CatalogError, "0.5"),
        (ZEROS, np.zeros((1, 2)), hr.CatalogError, "float64"),
    ],
)
def test_invalid_arguments(logits, sids, error, match):
    with pytest.raises(error, match=match):
        hr.log_probs(INDEX, logits, sids)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "i8", "u8"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_sids_of_every_dtype(backend, dtype):
    pytest.importorskip(backend)
    logits = [array_of(backend, np.zeros((2, size), np.float32)) for size in (3, 2)]
    largest = np.iinfo(dtype).max
    found = to_numpy(hr.log_probs(INDEX.to(backend), logits, np.array([[0, 1], [largest, 1]], dtype)))
    np.testing.assert_allclose(found, [[-math.log(2), 0], [-INF, -INF]], rtol=1e-5)


def test_other_arguments():
    with pytest.raises(hr.ArgumentError, match="normalize"):
        hr.log_probs(INDEX, ZEROS, [[0, 1]], normalize="vocab")  # type: ignore[arg-type]
    with pytest.raises(hr.ArgumentError, match="temperature"):
        hr.log_probs(INDEX, ZEROS, [[0, 1]], normalize=None, temperature=2.0)
    torch = pytest.importorskip("torch")
    with pytest.raises(hr.ArgumentError, match="integers"):
        hr.log_probs(INDEX.to("torch"), [torch.zeros(1, 3), torch.zeros(1, 2)], torch.zeros(1, 2))
