"""A step whose logits are divided among ranks equals the step over all logits."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ragged import Ragged
from ranks import Ranks
from support import BACKENDS, FakeModel, array_of, catalogs, dense_levels_of
from test_ties import CoarseModel

import hedgerow as hr
from hedgerow.decode.ops import ops_of, to_numpy
from hedgerow.decode.oracle import oracle_search

pytestmark = pytest.mark.usefixtures("layout")

INF = float("inf")
FIELDS = ("codes", "scores", "states", "parents")


# JAX divides a head over a mesh: tests/distributed/test_mesh.py.
@pytest.fixture(params=["numpy", "torch"])
def backend(request):
    pytest.importorskip(request.param)
    return request.param


def cut(size: int, cuts: list[float]) -> list[tuple[int, int]]:
    """Divide 0 to size - 1 at these fractions. Ranges can be empty."""
    ends = sorted(round(fraction * size) for fraction in cuts)
    return list(zip([0, *ends], [*ends, size], strict=True))


def divided_step(device_index, beams, logits, ranges, **options):
    """The step on all ranks; checks that they return the same beams."""
    backend, level = device_index.backend, beams.level
    size = device_index.levels[level].codebook_size
    options.setdefault("normalize", "codes")

    def of_rank(rank, gather):
        first, stop = ranges(size)[rank]
        columns = array_of(backend, np.ascontiguousarray(logits[..., first:stop]))
        return hr.step(device_index, beams, columns, code_range=(first, stop), gather=gather, **options)

    found = Ranks(len(ranges(size)), ops_of(backend).xp.stack).run(of_rank)
    for beams in found[1:]:
        assert_equal(beams, found[0])
    return found[0]


def merged_step(device_index, beams, logits, ranges, beam_width, **options):
    """The step on all ranks without an exchange, and `best_of`."""
    found = []
    for first, stop in ranges(logits.shape[-1]):
        columns = array_of(device_index.backend, np.ascontiguousarray(logits[..., first:stop]))
        options |= {"beam_width": beam_width, "code_range": (first, stop)}
        found.append(hr.step(device_index, beams, columns, normalize=None, **options))
    return hr.best_of(found, beam_width)


def assert_equal(beams, expected):
    for name in FIELDS:
        np.testing.assert_array_equal(to_numpy(getattr(beams, name)), to_numpy(getattr(expected, name)), err_msg=name)


def assert_close(beams, expected):
    for name in ("codes", "states", "parents"):
        np.testing.assert_array_equal(to_numpy(getattr(beams, name)), to_numpy(getattr(expected, name)), err_msg=name)
    np.testing.assert_allclose(to_numpy(beams.scores), to_numpy(expected.scores), rtol=1e-5, atol=1e-5)


def assert_search_equals(index, backend, model, cuts, beam_width, normalize, rules: Any = None, **options):
    """Compare every step of a search, and return the last beams."""
    ranges, device_index = partial(cut, cuts=cuts), index.to(backend)
    prepared = hr.prepare_constraints(device_index, 2, **(rules or {}))
    options |= {"beam_width": beam_width, "constraints": prepared}
    beams = hr.init_beams(device_index, 2)
    for _ in range(index.num_levels):
        logits = model(beams)
        expected = hr.step(
            device_index, beams, array_of(backend, logits), normalize=normalize, kernel="array", **options
        )
        found = divided_step(device_index, beams, logits, ranges, normalize=normalize, **options)
        if normalize is None:
            assert_equal(found, expected)
            assert_equal(merged_step(device_index, beams, logits, ranges, **options), expected)
        else:
            assert_close(found, expected)
        beams = found
    return beams


CUTS = st.lists(st.floats(0, 1), min_size=0, max_size=3)


def test_equals_the_undivided_step_and_the_oracle(backend):
    @settings(max_examples=80)
    @given(
        catalog=catalogs(),
        cuts=CUTS,
        beam_width=st.sampled_from([1, 2, 5, 7, 70]),
        normalize=st.sampled_from(["codes", "allowed", None]),
        dense=st.sampled_from(["auto", "all", "none"]),
    )
    def check(catalog, cuts, beam_width, normalize, dense):
        index = hr.build_index(catalog, dense_levels=dense_levels_of(dense, catalog.num_levels))
        model = FakeModel(catalog.codebook_sizes)
        beams = assert_search_equals(index, backend, model, cuts, beam_width, normalize)
        sids = [tuple(sid) for sid in catalog.sids.tolist()]
        for request in range(2):
            expected = oracle_search(sids, model.logits_of(request), catalog.num_levels, beam_width, normalize)
            found = to_numpy(beams.codes)[request, : len(expected)].tolist()
            assert sorted(map(tuple, found)) == sorted(sid for sid, _ in expected)
            assert (to_numpy(beams.scores)[request, len(expected) :] == -INF).all()

    check()


def test_ties_come_in_the_order_of_sids(backend):
    @settings(max_examples=40)
    @given(
        catalog=catalogs(),
        cuts=CUTS,
        beam_width=st.sampled_from([1, 5, 17]),
        dense=st.sampled_from(["auto", "all", "none"]),
        highest=st.sampled_from([0, 1]),
    )
    def check(catalog, cuts, beam_width, dense, highest):
        index = hr.build_index(catalog, dense_levels=dense_levels_of(dense, catalog.num_levels))
        model = CoarseModel(catalog.codebook_sizes)
        model.highest = highest
        beams = assert_search_equals(index, backend, model, cuts, beam_width, None)
        sids = [tuple(sid) for sid in catalog.sids.tolist()]
        expected = oracle_search(sids, model.logits_of(0), catalog.num_levels, beam_width, None)
        assert [tuple(sid) for sid in to_numpy(beams.codes)[0, : len(expected)].tolist()] == [s for s, _ in expected]

    check()


@pytest.mark.parametrize("normalize", ["codes", "allowed", None])
@pytest.mark.parametrize("dense", ["all", "none"])
def test_sets_and_exclusions(backend, dense, normalize):
    """Also with a node of more children than a rank has columns."""
    rng = np.random.default_rng(3)
    sids = rng.integers(0, 60, (400, 3))
    sids[:150, :2] = sids[0, :2]
    index = hr.build_index(hr.Catalog(sids, codebook_sizes=60), dense_levels=dense_levels_of(dense, 3))
    rules = {
        "constraints": [index.constraint(rng.random(400) < 0.5, order="index"), None],
        "exclude": [[*range(0, 400, 3)], [*range(100)]],
    }
    for cuts in ([0.25, 0.5, 0.75], [0.1], [0.5, 0.5, 1.0]):
        beams = assert_search_equals(index, backend, FakeModel((60,) * 3), cuts, 30, normalize, rules)
    assert to_numpy(beams.num_valid).tolist() == [30, 30]


@pytest.mark.parametrize("normalize", ["codes", "allowed", None])
def test_ragged_sids(backend, normalize):
    items = Ragged([(2,), (1,), (1, 2), (1, 2, 3), (1, 0), (0, 1, 2)], (4, 4, 4))
    index = hr.build_index(items.catalog)
    for cuts in ([0.5], [0.2, 0.9], [1.0]):
        assert_search_equals(index, backend, FakeModel(items.catalog.codebook_sizes), cuts, 6, normalize)


def test_special_logits(backend):
    """A rank whose columns are all banned, infinite logits, and requests without a beam."""
    index = hr.build_index(hr.Catalog([[0], [2], [3], [5]], codebook_sizes=6))
    device_index = index.to(backend)
    rows = [[-INF, -INF, -INF, 1.0, 0.0, 2.0], [np.nan] * 6, [INF, 0.0, INF, -INF, np.nan, 3e38]]
    logits = np.asarray(rows, np.float32)[:, None]
    for normalize in ("codes", "allowed", None):
        for temperature in (1.0, 0.5) if normalize else (1.0,):
            options: Any = {"beam_width": 5, "normalize": normalize, "temperature": temperature}
            start = hr.init_beams(device_index, 3)
            found = divided_step(device_index, start, logits, lambda _: [(0, 3), (3, 6)], **options)
            expected = hr.step(device_index, start, array_of(backend, logits), kernel="array", **options)
            assert_close(found, expected)
            assert to_numpy(found.num_valid).tolist() == [2, 0, 3]


def test_a_search(backend):
    index = hr.build_index(hr.Catalog(np.random.default_rng(0).integers(0, 20, (200, 3)), codebook_sizes=20))
    device_index, model, ranges = index.to(backend), FakeModel((20,) * 3), [(0, 5), (5, 20)]
    options: Any = {"batch_size": 2, "beam_width": 12}

    def of_rank(rank, gather):
        first, stop = ranges[rank]
        return hr.beam_search(
            device_index,
            lambda beams: array_of(backend, np.ascontiguousarray(model(beams)[..., first:stop])),
            code_ranges=[(first, stop)] * 3,
            gather=gather,
            **options,
        )

    found = Ranks(2, device_index._ops.xp.stack).run(of_rank)
    expected = hr.beam_search(device_index, lambda beams: array_of(backend, model(beams)), **options)
    for beams in found:
        assert_close(beams, expected)
        np.testing.assert_allclose(to_numpy(beams.code_scores), to_numpy(expected.code_scores), rtol=1e-5, atol=1e-5)


def test_bytes_that_travel():
    """12 bytes per candidate and 8 per normalizer, of each rank; the logits would be 4 bytes per code and beam."""
    batch, width, size, count = 8, 256, 8192, 4
    rng = np.random.default_rng(0)
    index = hr.build_index(hr.Catalog(rng.integers(0, size, (20_000, 3)), codebook_sizes=size)).to("numpy")
    beams = hr.init_beams(index, batch)
    beams = hr.step(index, beams, rng.normal(size=(batch, 1, size)).astype(np.float32), beam_width=width)
    ranks, share = Ranks(count, np.stack), size // count

    def of_rank(rank, gather):
        logits = np.random.default_rng(rank).normal(size=(batch, width, share)).astype(np.float32)
        code_range = (rank * share, (rank + 1) * share)
        return hr.step(index, beams, logits, beam_width=width, code_range=code_range, gather=gather)

    ranks.run(of_rank)
    assert ranks.num_bytes == count * batch * width * (12 + 8) == 163_840
    assert batch * width * size * 4 == 67_108_864


def test_a_rank_ranks_no_more_children_than_it_has_columns(monkeypatch):
    from hedgerow.decode.kernels import array

    widths = []
    best = array.best
    monkeypatch.setattr(
        array, "best", lambda ops, scores, *rest: widths.append(scores.shape[-1]) or best(ops, scores, *rest)
    )
    index = hr.build_index(hr.Catalog([[code] for code in range(100)]), dense_levels=()).to("numpy")
    start = hr.init_beams(index, 1)
    for size in (100, 25, 0):
        hr.step(index, start, np.zeros((1, 1, size), np.float32), beam_width=2, normalize=None, code_range=(0, size))
    assert widths == [100, 25, 1]


class TestBestOf:
    def setup_method(self):
        self.index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [3, 2]], codebook_sizes=4)).to("numpy")
        self.beams = hr.step(self.index, hr.init_beams(self.index, 1), np.zeros((1, 1, 4)), beam_width=2)

    def test_more_beams_than_there_are(self):
        merged = hr.best_of(self.beams, 5)
        assert merged.num_valid.tolist() == [2]
        assert merged.codes[0, :, 0].tolist() == [0, 2, -1, -1, -1]
        assert merged.parents.tolist() == [[0] * 5]

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_beams_side_by_side_equal_a_sequence(self, backend):
        pytest.importorskip(backend)
        index = hr.build_index(hr.Catalog([[0], [2], [3]], codebook_sizes=4)).to(backend)
        start = hr.init_beams(index, 1)
        first, second = (
            hr.step(
                index,
                start,
                array_of(backend, np.zeros((1, 1, 2), np.float32)),
                beam_width=2,
                normalize=None,
                code_range=code_range,
            )
            for code_range in ((2, 4), (0, 2))
        )
        side_by_side = {
            name: index._ops.xp.concat([getattr(x, name) for x in (first, second)], axis=1) for name in FIELDS
        }
        assert_equal(hr.best_of(hr.Beams(**side_by_side), 3), hr.best_of([first, second], 3))
        assert to_numpy(hr.best_of([first, second], 3).codes)[0, :, 0].tolist() == [0, 2, 3]

    def test_rejects(self):
        start = hr.init_beams(self.index, 1)
        with pytest.raises(hr.ArgumentError, match="best_of takes Beams, or a sequence of them; got ndarray"):
            hr.best_of([np.zeros(3)], 2)  # pyright: ignore
        with pytest.raises(hr.ArgumentError, match="the same requests and level"):
            hr.best_of([self.beams, start], 2)
        with pytest.raises(hr.ArgumentError, match="the same requests and level"):
            hr.best_of([], 2)
        with pytest.raises(hr.ArgumentError, match="beam_width"):
            hr.best_of(self.beams, 0)
        torch = pytest.importorskip("torch")
        other = replace(self.beams, scores=torch.from_numpy(self.beams.scores))
        with pytest.raises(hr.BackendError, match="arrays of one backend"):
            hr.best_of([self.beams, other], 2)


class TestRejects:
    def setup_method(self):
        self.index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [3, 2]], codebook_sizes=4)).to("numpy")
        self.start = hr.init_beams(self.index, 1)
        self.logits = np.zeros((1, 1, 2), np.float32)

    def step(self, code_range, logits=None, **options):
        logits = self.logits if logits is None else logits
        return hr.step(self.index, self.start, logits, beam_width=2, code_range=code_range, **options)

    @pytest.mark.parametrize(
        "code_range", [(3, 5), (-1, 1), (2, 0), (0.0, 2.0), (0,), "02", 2, (None, 2), (np.zeros(1), np.ones(1))]
    )
    def test_code_ranges(self, code_range):
        with pytest.raises(hr.ArgumentError, match="code_range must be"):
            self.step(code_range, normalize=None)

    @pytest.mark.parametrize("normalize", ["codes", "allowed"])
    def test_normalizers_of_a_part(self, normalize):
        with pytest.raises(hr.ArgumentError, match="needs the logits of all codes"):
            self.step((0, 2), normalize=normalize)

    def test_all_codes_need_no_gather(self):
        logits = np.zeros((1, 1, 4), np.float32)
        assert_equal(self.step((0, 4), logits), hr.step(self.index, self.start, logits, beam_width=2, kernel="array"))

    def test_logits_of_other_columns(self):
        with pytest.raises(hr.ArgumentError, match=r"stop - first\] = \[1, 1, 3\].*got \[1, 1, 2\]"):
            self.step((0, 3), normalize=None)

    def test_gather_without_columns(self):
        with pytest.raises(hr.ArgumentError, match="gather needs code_range"):
            hr.step(self.index, self.start, self.logits, beam_width=2, gather=lambda x: x[None])

    def test_a_gather_that_joins(self):
        with pytest.raises(hr.ArgumentError, match=r"stack the arrays of all ranks.*all_gather"):
            self.step((0, 2), gather=lambda x: np.concatenate([x, x]))

    @pytest.mark.parametrize("kernel", ["native", "triton"])
    def test_kernels_that_take_all_columns(self, kernel):
        with pytest.raises(hr.BackendError, match=f"the {kernel} kernel takes the logits of all codes"):
            self.step((0, 2), normalize=None, kernel=kernel)

    def test_gradients_between_ranks(self):
        torch = pytest.importorskip("torch")
        index = hr.build_index(hr.Catalog([[0], [1]])).to("torch")
        options: Any = {"beam_width": 2, "normalize": None, "code_range": (0, 1)}
        logits = torch.zeros(1, 1, 1, requires_grad=True)
        assert hr.step(index, hr.init_beams(index, 1), logits, **options).scores.requires_grad
        with pytest.raises(hr.BackendError, match="gradients do not pass between ranks"):
            hr.step(index, hr.init_beams(index, 1), logits, gather=lambda x: x[None], **options)

    def test_searches(self):
        options: Any = {"batch_size": 1, "beam_width": 2}
        with pytest.raises(hr.ArgumentError, match="needs gather"):
            hr.beam_search(self.index, lambda _: self.logits, code_ranges=[(0, 2)] * 2, **options)
        with pytest.raises(hr.ArgumentError, match="for each of the 2 levels; got 1"):
            hr.beam_search(self.index, lambda _: self.logits, code_ranges=[(0, 2)], gather=lambda x: x[None], **options)
