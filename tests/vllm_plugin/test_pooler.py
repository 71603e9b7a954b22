"""The pooler with a made engine: whatever a request has, it gets an answer, and no exception leaves the pooler."""

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("vllm")

from transformers import GenerationConfig

from hedgerow.errors import ArgumentError
from hedgerow.vllm.model import check_config, check_generation
from hedgerow.vllm.pooler import INTERNAL, BeamPooler
from hedgerow.vllm.wire import KEY, Asked, EngineError, unpack_answer


class MadeSearch:
    """Answers with the first row and the beam width, and fails for some widths."""

    def __init__(self):
        self.batches = []

    def batch_size(self, beam_width):
        return max(1, 64 // beam_width)

    def answers(self, batch):
        self.batches.append([request.beam_width for request in batch.asked])
        for request in batch.asked:
            if request.beam_width == 13:
                raise ArgumentError("thirteen")
            if request.beam_width == 14:
                raise RuntimeError("something inside")
        return [torch.tensor([[row, request.beam_width]]) for row, request in zip(batch.rows, batch.asked, strict=True)]


def pool(given, *, finished=None, metadata: str | None = "made"):
    """What the pooler answers to the values of `extra_kwargs`."""
    count, search = len(given), MadeSearch()
    model = SimpleNamespace(take_metadata=lambda: {"layer": metadata} if metadata else None)
    cursor = SimpleNamespace(
        get_finished_mask=lambda: [True] * count if finished is None else finished,
        prompt_lens_cpu=torch.arange(count) + 1,
        last_token_indices_gpu=torch.arange(count),
    )
    params = [SimpleNamespace(extra_kwargs=value) for value in given]
    wanted = SimpleNamespace(pooling_params=params, get_pooling_cursor=lambda: cursor)
    made: Any = search
    return BeamPooler(model, made)(torch.zeros(count, 4), wanted), search


def asking(width, **options):
    return {KEY: Asked(None, width, None, np.array([], np.int64), None).pack() | options}


def message_of(answer):
    with pytest.raises(EngineError) as error:
        unpack_answer(answer)
    return str(error.value)


def test_rows_get_their_answers_and_others_nothing():
    answers, _ = pool([asking(5), None, asking(5), {"other": 1}, asking(7)], finished=[True, True, False, True, True])
    assert [answer.tolist() for answer in answers] == [[[0, 5]], [], [], [], [[4, 7]]]


def test_a_request_that_fails_does_not_fail_others():
    answers, search = pool([asking(width) for width in (12, 13, 14, 15, 16, 12)])
    assert [answers[row].tolist() for row in (0, 3, 4, 5)] == [[[0, 12]], [[3, 15]], [[4, 16]], [[5, 12]]]
    assert (message_of(answers[1]), message_of(answers[2])) == ("thirteen", INTERNAL)
    # Requests of similar widths are searched together, as many as fit.
    assert search.batches[0] == [12, 13, 14, 15]


def test_anything_else_is_an_error_of_its_request():
    draw = random.Random(0)
    values = [None, 5, "x", [], {}, b"123", -1, 2**70, {"a": 1}, True, 1.5]
    names = list(Asked(None, 1, None, np.array([], np.int64), None).pack())
    given = [{KEY: draw.choice(values[1:])} for _ in range(500)]
    given += [asking(5, **{draw.choice(names): draw.choice(values) for _ in range(2)}) for _ in range(9_500)]
    answers, _ = pool(given)
    assert len(answers) == 10_000
    errors = [message_of(answer) for answer in answers if answer.ndim == 1]
    assert len(errors) > 5_000
    assert all(errors)


def test_a_batch_without_metadata_is_an_error_that_says_what_to_do():
    answers, _ = pool([asking(5), None], metadata=None)
    assert "cudagraph_mode" in message_of(answers[0])
    assert answers[1].tolist() == []


def test_profile_runs_get_empty_answers():
    answers, search = pool([None] * 4, metadata=None)
    assert [answer.tolist() for answer in answers] == [[]] * 4
    assert not search.batches


def test_generation_configurations_that_change_scores_are_refused(tmp_path):
    check_generation(str(tmp_path), "vocab")
    GenerationConfig(repetition_penalty=1.2).save_pretrained(tmp_path)
    check_generation(str(tmp_path), "codes")
    with pytest.raises(ArgumentError, match="repetition_penalty"):
        check_generation(str(tmp_path), "vocab")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tensor_parallel_size": 2}, "tensor-parallel"),
        ({"lora": object()}, "LoRA"),
        ({"draft": object()}, "speculative"),
    ],
)
def test_configurations_that_cannot_be_searched_are_refused(change, message):
    sizes = {"tensor_parallel_size": 1, "pipeline_parallel_size": 1}
    config = SimpleNamespace(
        parallel_config=SimpleNamespace(**sizes | {name: change[name] for name in change if name in sizes}),
        lora_config=change.get("lora"),
        speculative_config=change.get("draft"),
    )
    with pytest.raises(ArgumentError, match=message):
        check_config(config)
