"""A search whose head is divided among two processes equals the search with the whole head."""

import os

import pytest
from gloo import run_in_processes

torch = pytest.importorskip("torch")
if not torch.distributed.is_available():
    pytest.skip("this PyTorch has no torch.distributed", allow_module_level=True)

SEARCH = """
from hedgerow.distributed import check_code_ranges, even_code_ranges, gather_over

dist.init_process_group("gloo")
rng = np.random.default_rng(0)
SIZES, BATCH, WIDTH = (6, 64, 301), 3, 20
sids = np.stack([rng.integers(0, size, 2000) for size in SIZES], axis=1)
index = hr.build_index(hr.Catalog(sids, codebook_sizes=SIZES), dense_levels=(0,))
device_index = index.to("torch")
torch.manual_seed(0)
embed, head = torch.nn.Embedding(400, 16), [torch.nn.Linear(16, size) for size in SIZES]
torch.set_grad_enabled(False)


def features(beams):
    codes = beams.codes[..., -1].clamp(min=0).long() if beams.level else torch.zeros(beams.states.shape, dtype=int)
    return embed(codes)


def logits_of(beams, first=0, stop=None):
    layer = head[beams.level]
    return torch.nn.functional.linear(features(beams), layer.weight[first:stop], layer.bias[first:stop])


def search(**options):
    return hr.beam_search(device_index, batch_size=BATCH, beam_width=WIDTH, **options)


# A vocabulary that is divided often has all codes of a level on one rank.
lumped = [[(0, 6), (0, 0), (0, 300)], [(6, 6), (0, 64), (300, 301)]][RANK]
some = index.constraint(rng.random(2000) < 0.7, order="index")
rules = {"constraints": [some, None, None], "exclude": [[5], None, [7]]}
for ranges in (even_code_ranges(index), lumped):
    check_code_ranges(index, ranges)
    for normalize in ("codes", "allowed", None):
        options = rules | {"normalize": normalize}
        expected = search(logits_fn=logits_of, **options)
        found = search(
            logits_fn=lambda beams: logits_of(beams, *ranges[beams.level]),
            code_ranges=ranges,
            gather=gather_over(),
            **options,
        )
        for name in ("codes", "states", "parents"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), (ranges, normalize, name)
        torch.testing.assert_close(found.scores, expected.scores, rtol=1e-5, atol=1e-5)
        assert_same_on_all_ranks(found.codes, found.scores, found.states, found.parents)

ranges, gather = even_code_ranges(index), gather_over()
step = torch.compile(hr.step, fullgraph=True, dynamic=False, backend="aot_eager")
beams = hr.init_beams(device_index, BATCH)
for code_range in ranges:
    logits = logits_of(beams, *code_range)
    options = {"beam_width": WIDTH, "code_range": code_range, "gather": gather}
    expected = hr.step(device_index, beams, logits, **options)
    beams = step(device_index, beams, logits, **options)
    assert torch.equal(beams.codes, expected.codes)
    torch.testing.assert_close(beams.scores, expected.scores)
"""
RANGES = """
from hedgerow.distributed import check_code_ranges

dist.init_process_group("gloo")
index = hr.build_index(hr.Catalog([[0, 1], [3, 2]], codebook_sizes=4))
for of_ranks, message in (
    ([[(0, 2), (0, 2)], [(2, 4), (3, 4)]], "level 1: code 2 is on no rank"),
    ([[(0, 3), (0, 2)], [(2, 4), (2, 4)]], "level 0: code 2 is on several ranks"),
    ([[(0, 2), (0, 2)], [(2, 3), (2, 4)]], "level 0: code 3 is on no rank"),
    ([[(0, 2), (0, 2)], [(2, 5), (2, 4)]], "(2, 5) is not a range of its codes"),
    ([[(0, 2), (0, 2)], [(2, 4)]], "for each of the 2 levels; the ranks have 2, 1"),
):
    try:
        check_code_ranges(index, of_ranks[RANK])
    except hr.ArgumentError as error:
        assert message in str(error), str(error)
    else:
        raise AssertionError(message)
check_code_ranges(index, [[(4, 4), (0, 3)], [(0, 4), (3, 4)]][RANK])
"""


def test_a_divided_search(tmp_path):
    run_in_processes(SEARCH, tmp_path)


def test_code_ranges_of_ranks_are_checked(tmp_path):
    run_in_processes(RANGES, tmp_path)


def test_without_a_process_group():
    import hedgerow as hr
    from hedgerow.distributed import even_code_ranges, gather_over

    assert "RANK" not in os.environ
    index = hr.build_index(hr.Catalog([[0, 1]]))
    for function in (gather_over, lambda: even_code_ranges(index)):
        with pytest.raises(hr.BackendError, match="init_process_group"):
            function()
