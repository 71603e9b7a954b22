"""Retriever.refresh and warm_up: other versions and other shapes of traffic, without another trial or compilation."""

import threading
from contextlib import nullcontext
from typing import Any
from unittest import mock

import numpy as np
import pytest

import hedgerow as hr

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from tiny import CODES, SHAPES, TOKENS, assert_same_results, index, model_of, new_model, prompts_of

from hedgerow.hf import Retriever, Shapes, graphs, probe, warming

PROMPTS = prompts_of(9, 4, 7, 12)
NO_TREE = ("mamba", "bloom", "gpt_neo")


@pytest.fixture
def live(tmp_path):
    return hr.LiveIndex.create(tmp_path / "items.live", index(), headroom=2.0)


def added(number):
    return hr.Catalog([[number % CODES, 19 - number % CODES, 5]], item_ids=[f"new {number}"], codebook_sizes=CODES)


def assert_same_as_new(retriever, version):
    new = Retriever(retriever.model, version, TOKENS)
    for prompt in PROMPTS[:2]:
        assert_same_results(
            retriever.retrieve(prompt, beam_width=8)[0],
            new.retrieve(prompt, beam_width=8)[0],
        )


class TestRefresh:
    def test_a_version_without_another_trial(self, live, monkeypatch):
        retriever = Retriever(model_of("llama"), live, TOKENS)
        trials = []
        monkeypatch.setattr(probe, "_own_logits", trials.append)
        (first,) = retriever.retrieve(PROMPTS[0], beam_width=8, k=3)
        version = live.remove(first.item_ids)
        assert retriever.retrieve(PROMPTS[0], beam_width=8, k=3)[0].item_ids == first.item_ids
        assert retriever.refresh() is retriever.version is version
        assert not set(retriever.retrieve(PROMPTS[0], beam_width=8)[0].item_ids) & set(first.item_ids)
        live.add(added(3))
        retriever.refresh()
        assert "new 3" in retriever.index.item_ids.to_pylist()
        monkeypatch.undo()
        assert trials == []
        assert_same_as_new(retriever, live.version)

    def test_another_index_and_one_of_other_codes(self, live):
        retriever = Retriever(model_of("llama"), index(), TOKENS)
        with pytest.raises(hr.ArgumentError, match="was not created with a LiveIndex"):
            retriever.refresh()
        with pytest.raises(hr.ArgumentError, match="SIDs of 2 codes"):
            retriever.refresh(hr.build_index(hr.Catalog([[0, 1]])))
        assert retriever.index is index()
        assert retriever.refresh(live) is live.version
        live.remove(["item 3"])
        assert retriever.refresh() is live.version
        assert live.version.number == 2
        assert retriever.refresh(index()) is None
        assert_same_as_new(retriever, index())

    def test_ragged_versions_have_other_tokens(self):
        tokens = hr.TokenMap.from_offsets((200, 230, 260), CODES, end=2)
        ragged = hr.build_index(hr.Catalog([[0], [0, 1], [3, 4, 5]], codebook_sizes=CODES, ragged=True))
        retriever = Retriever(model_of("llama"), index(), tokens)
        retriever.refresh(ragged)
        expected = Retriever(model_of("llama"), ragged, tokens).retrieve(PROMPTS[0], beam_width=3)
        assert_same_results(retriever.retrieve(PROMPTS[0], beam_width=3)[0], expected[0])

    def test_searches_during_changes_are_of_one_version(self, live):
        """Every answer is that of a version, with its rules checked on the same one."""
        retriever = Retriever(model_of("llama"), live, TOKENS)
        failures, stop = [], threading.Event()

        def search():
            while not stop.is_set():
                answers = retriever.answer([hr.Request(prompt, beam_width=5, exclude=["item 1"]) for prompt in PROMPTS])
                failures.extend(answer for answer in answers if not isinstance(answer, hr.Results))

        threads = [threading.Thread(target=search) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(6):
            live.add(added(number))
            retriever.refresh()
            live.remove([f"new {number}"])
            retriever.refresh()
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []


@pytest.mark.parametrize("name", SHAPES)
def test_eight_threads_on_one_retriever(name):
    model = new_model(name)
    retriever = Retriever(model, index(), TOKENS, decoding="plain" if name in NO_TREE else "auto")
    expected = [retriever.retrieve(prompt, beam_width=5)[0] for prompt in PROMPTS]
    failures = []

    def search(number):
        try:
            for turn in range(3):
                row = (number + turn) % len(PROMPTS)
                assert_same_results(retriever.retrieve(PROMPTS[row], beam_width=5)[0], expected[row])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=search, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def graphs_of(retriever):
    assert retriever._searcher.graphs is not None
    return retriever._searcher.graphs


def random_requests(generator, searched, size):
    requests = []
    for _ in range(size):
        rules = {}
        if generator.random() < 0.5:
            rules["constraints"] = searched.constraint(generator.random(searched.num_items) < 0.5, order="index")
        if generator.random() < 0.5:
            rules["exclude"] = [f"item {row}" for row in generator.integers(0, 90, generator.integers(1, 20))]
        if generator.random() < 0.3:
            rules["candidates"] = [f"item {row}" for row in generator.integers(0, 90, generator.integers(1, 20))]
        prompt = generator.integers(5, 190, generator.integers(1, 20)).tolist()
        requests.append(hr.Request(prompt, beam_width=int(generator.integers(1, 9)), **rules))
    return requests


def test_random_requests_after_warm_up(live):
    retriever = Retriever(model_of("llama"), live, TOKENS, kernel="native")
    steps = []
    shapes = Shapes(beam_widths=(4, 8), batch_size=4, prompt_length=20, sets=4, excluded=20, candidates=True)
    retriever.warm_up(shapes, progress=lambda done, total: steps.append((done, total)))
    assert steps[-1][0] == steps[-1][1] == len(steps)
    generator = np.random.default_rng(0)
    for turn in range(30):
        answers = retriever.answer(random_requests(generator, retriever.index, int(generator.integers(1, 5))))
        assert all(isinstance(answer, hr.Results) for answer in answers)
        if turn % 10 == 5:
            live.remove([f"item {turn}"])
            retriever.refresh()


def test_shapes_are_checked():
    with pytest.raises(hr.ArgumentError, match="beam_widths must be a list"):
        Shapes(beam_widths=())
    with pytest.raises(hr.ArgumentError, match="batch_size must be"):
        Shapes(batch_size=0)
    with pytest.raises(hr.ArgumentError, match="shapes must be a"):
        Retriever(model_of("llama"), index(), TOKENS).warm_up(8)  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("replayed")
class TestGraphs:
    """The logic of captured searches. In place of a CUDA graph, a replay runs the search again on the inputs."""

    @pytest.fixture
    def replayed(self, monkeypatch):
        def capture(run, pool):
            assert pool == "pool"
            searched = run()

            def replay():
                again = run()
                for old, new in zip(searched.history, again.history, strict=True):
                    for name in ("codes", "scores", "states", "parents", "code_scores"):
                        if (array := getattr(old, name)) is not None:
                            array.copy_(getattr(new, name))
                searched.invalid.copy_(again.invalid)

            return replay, searched

        monkeypatch.setattr(graphs, "capture", capture)
        monkeypatch.setattr(graphs, "new_pool", lambda: "pool")
        monkeypatch.setattr(graphs, "check_capture", lambda _: None)
        monkeypatch.setattr("hedgerow.hf.retriever.check_capture", lambda _: None)

    def assert_same_answers(self, retriever, requests):
        eager = Retriever(retriever.model, retriever.version or retriever.index, TOKENS)
        for got, expected in zip(retriever.answer(requests), eager.answer(requests), strict=True):
            assert isinstance(expected, hr.Results)
            assert_same_results(got, expected)

    def test_random_mixes_and_versions_capture_nothing_after_warm_up(self, live):
        retriever = Retriever(model_of("llama"), live, TOKENS, cuda_graphs=True)
        shapes = Shapes(beam_widths=(4, 8), batch_size=4, prompt_length=20, sets=4, excluded=20)
        retriever.warm_up(shapes)
        captured = graphs_of(retriever)
        before, generator = captured.captures, np.random.default_rng(1)
        # Sizes of batches, widths, whether widths are mixed, and whether there are exclusions. There is always a set:
        # that of the version's items.
        assert before == len(captured) == 3 * 2 * 2 * 2
        for turn in range(12):
            requests = random_requests(generator, retriever.index, int(generator.integers(1, 5)))
            self.assert_same_answers(retriever, requests)
            if turn % 4 == 1:
                live.remove([f"item {turn}"])
                retriever.refresh()
            elif turn % 4 == 3:
                live.add(added(turn))
                retriever.refresh()
        assert captured.captures == before

    def test_two_versions_in_turn(self, live):
        retriever = Retriever(model_of("llama"), live, TOKENS, cuda_graphs=True)
        first, second = live.version, live.add(added(3))
        for _ in range(2):
            for version in (first, second):
                retriever.refresh(version)
                self.assert_same_answers(retriever, [hr.Request(prompt, beam_width=8) for prompt in PROMPTS])
        assert graphs_of(retriever).captures == 1

    def test_without_capacity_each_index_has_its_graphs(self):
        retriever = Retriever(model_of("llama"), index(), TOKENS, cuda_graphs=True)
        other = hr.build_index(hr.Catalog(index().sids()[::2], codebook_sizes=CODES))
        for searched in (index(), other, index()):
            retriever.refresh(searched)
            self.assert_same_answers(retriever, [hr.Request(PROMPTS[0], beam_width=8)])
        assert graphs_of(retriever).captures == 3
        assert len(graphs_of(retriever)) == 1

    def test_the_oldest_are_released(self, monkeypatch):
        monkeypatch.setattr(warming, "MAX_GRAPHS", 1)
        retriever = Retriever(model_of("llama"), index(), TOKENS, cuda_graphs=True)
        captured = graphs_of(retriever)
        captured.prepare(captured.room, (), max_graphs=2)
        for width in (2, 3, 4, 2):
            self.assert_same_answers(retriever, [hr.Request(PROMPTS[0], beam_width=width)])
        assert (captured.captures, len(captured)) == (4, 2)

    def test_searches_wait_for_each_other_on_the_device(self, monkeypatch):
        """Threads can have streams of their own, and the lock orders only their work on the host."""
        happened = []
        monkeypatch.setattr(graphs, "recorded", lambda: happened.append("end") or len(happened))
        monkeypatch.setattr(graphs, "wait_for", lambda event: happened.append(("wait", event)))
        retriever = Retriever(model_of("llama"), index(), TOKENS, cuda_graphs=True)
        for _ in range(2):
            retriever.retrieve(PROMPTS[0], beam_width=3)
        assert happened == [("wait", None), "end", ("wait", 2), "end"]

    def test_a_changed_model_is_captured_again(self):
        retriever = Retriever(new_model("llama"), index(), TOKENS, cuda_graphs=True)
        self.assert_same_answers(retriever, [hr.Request(PROMPTS[0], beam_width=8)])
        layer = retriever.model.model.layers[0].self_attn.q_proj
        layer.weight = torch.nn.Parameter(layer.weight * 2)
        self.assert_same_answers(retriever, [hr.Request(PROMPTS[0], beam_width=8)])
        assert graphs_of(retriever).captures == 2


def test_graphs_need_a_model_on_one_device():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, device="meta"))
    graphs.check_one_device(model[:1])
    with pytest.raises(hr.ArgumentError, match="on one device; they are on cpu, meta"):
        graphs.check_one_device(model)


def test_a_capture_is_of_one_thread_and_after_warm_ups(monkeypatch):
    """With stand-ins for the streams and graphs of CUDA."""
    runs, options = [], []
    side: Any = mock.MagicMock()
    for name in ("Stream", "current_stream", "CUDAGraph"):
        monkeypatch.setattr(torch.cuda, name, mock.MagicMock(return_value=side))
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())

    def capturing(graph, **given):
        assert (graph, len(runs)) == (side, graphs.WARM_UPS)
        options.append(given)
        return nullcontext()

    monkeypatch.setattr(torch.cuda, "graph", capturing)
    search: Any = lambda: runs.append(1) or len(runs)  # noqa: E731
    replay, searched = graphs.capture(search, "pool")
    assert options == [{"pool": "pool", "capture_error_mode": "thread_local"}]
    assert (replay, searched) == (side.replay, graphs.WARM_UPS + 1)
