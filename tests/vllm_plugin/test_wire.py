"""What goes between the two processes, the files of sets, and the settings. None of it needs vLLM."""

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("pydantic")

import hedgerow as hr
from hedgerow.vllm.settings import is_configured, read_settings
from hedgerow.vllm.stored_sets import SetReader, SetWriter
from hedgerow.vllm.wire import Asked, EngineError, pack_answer, pack_error, unpack_answer


def small_index(count=70):
    rng = np.random.default_rng(0)
    return hr.build_index(hr.Catalog(rng.integers(0, 6, (count, 3)), codebook_sizes=6))


def test_a_request_survives_the_way():
    asked = Asked(7, 50, "a/b", np.array([3, 2**31]), None)
    found = Asked.unpack(asked.pack())
    assert (found.version, found.beam_width, found.items, found.candidates) == (7, 50, "a/b", None)
    assert found.excluded.tolist() == [3, 2**31]
    candidates = Asked(None, 1, None, np.array([], np.int64), np.array([5]))
    rows = Asked.unpack(candidates.pack()).candidates
    assert rows is not None
    assert rows.tolist() == [5]


@pytest.mark.parametrize(
    "change",
    [
        {"version": "1"},
        {"beam_width": 0},
        {"beam_width": None},
        {"items": 5},
        {"excluded": [1]},
        {"candidates": b"123"},
    ],
)
def test_packed_values_of_another_type_are_refused(change):
    packed = Asked(1, 5, None, np.array([1]), np.array([2])).pack() | change
    with pytest.raises(hr.ArgumentError):
        Asked.unpack(packed)
    with pytest.raises(hr.ArgumentError):
        Asked.unpack("anything")


def test_beams_survive_the_way():
    index = small_index()
    torch.manual_seed(0)
    logits = [torch.randn(2, 9, 6) * 30 for _ in range(3)]
    beams = hr.beam_search(
        index.to("torch"), lambda beams: logits[beams.level][:, : beams.states.shape[1]], batch_size=2, beam_width=9
    )
    found = unpack_answer(pack_answer(beams, 1, 7, batch_size=2, seconds=0.25))
    assert (found.batch_size, found.seconds) == (2, 0.25)
    for name in ("codes", "scores", "states", "code_scores"):
        assert np.array_equal(getattr(found.beams, name)[0], getattr(beams, name)[1, :7].numpy())
    assert index.results(found.beams)[0].item_ids


def test_errors_survive_the_way():
    with pytest.raises(EngineError, match="für alle"):
        unpack_answer(pack_error("für alle"))
    with pytest.raises(EngineError, match="no answer"):
        unpack_answer(torch.zeros(0))


def test_sets_survive_the_way(tmp_path):
    index = small_index()
    even = index.constraint(np.arange(len(index)) % 2 == 0, order="index")
    writer, reader = SetWriter(tmp_path), SetReader(tmp_path, index)
    name = writer.name_of(even)
    assert reader(name) == even
    assert writer.name_of(index.constraint(even.mask, order="index")) == name
    assert reader(name) is reader(name)
    assert reader(writer.name_of(~even)) == ~even


def test_files_that_are_not_sets_of_the_index_are_refused(tmp_path):
    index, other = small_index(), small_index(200)
    writer, reader = SetWriter(tmp_path), SetReader(tmp_path, index)
    name = writer.name_of(other.constraint(np.arange(200) < 3, order="index"))
    with pytest.raises(hr.ArgumentError, match="not one of this index"):
        reader(name)
    for bad in ("../secret", name + "x", name.replace("/", "\\"), "0" * 32 + "/" + "0" * 32):
        with pytest.raises(hr.ArgumentError):
            reader(bad)


def test_settings():
    given = {"HEDGEROW_INDEX": "items.hedgerow", "HEDGEROW_BEAM_WIDTH": "50,8", "HEDGEROW_ALLOW_WHERE": "1"}
    settings = read_settings(given | {"HEDGEROW_RULES": ""})
    assert (settings.beam_widths, settings.allow_where, settings.rules) == ((50, 8), True, None)
    service = settings.of_service(96)
    assert (service.beam_widths, service.default_beam_width, service.limits.prompt_tokens) == ((8, 50), 50, 96)
    assert not is_configured({"HEDGEROW_INDEX": ""})
    with pytest.raises(hr.ArgumentError, match="HEDGEROW_INDEX"):
        read_settings({})
    for name, value in {"BEAM_WIDTH": "0", "NORMALIZE": "all", "TEMPERATURE": "-1", "ALLOW_WHERE": "yes"}.items():
        with pytest.raises(hr.ArgumentError, match=f"HEDGEROW_{name}"):
            read_settings(given | {f"HEDGEROW_{name}": value})
