"""The routes in OpenAI's form, called by OpenAI's client."""

import math
from dataclasses import replace

import numpy as np
import pytest
from serve.support import SETTINGS, TOKEN, ask_of, index, retriever_of, service_of, started, text_of

import hedgerow as hr

openai = pytest.importorskip("openai")


@pytest.fixture(scope="module")
def guarded():
    with started(service_of(), tokens=(TOKEN,)) as client:
        yield client


@pytest.fixture(scope="module")
def client(guarded):
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=TOKEN, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def reference():
    return retriever_of(index())


def code_text(sid):
    return "".join(f"<s_{level}_{code}>" for level, code in zip("abc", sid, strict=True))


class TestChat:
    MESSAGES = ({"role": "system", "content": "w9"}, {"role": "user", "content": "w5 w6"})

    def test_choices_are_the_items(self, client, guarded):
        found = client.chat.completions.create(model="tiny", messages=list(self.MESSAGES), n=4, logprobs=True)
        items = guarded.retrieve(list(self.MESSAGES), k=4).document["items"]
        assert found.object == "chat.completion"
        assert found.model == "tiny"
        assert found.id.startswith("chatcmpl-")
        assert len(found.choices) == 4
        for number, (choice, item) in enumerate(zip(found.choices, items, strict=True)):
            assert choice.index == number
            assert choice.finish_reason == "stop"
            assert choice.message.role == "assistant"
            assert choice.message.content == code_text(item["sid"])
            assert choice.hedgerow == item  # type: ignore[attr-defined]
            tokens = choice.logprobs.content
            assert "".join(token.token for token in tokens) == choice.message.content
            assert all(token.bytes == list(token.token.encode()) for token in tokens)
            assert math.fsum(token.logprob for token in tokens) == pytest.approx(item["score"], abs=1e-4)

    def test_usage_and_what_hedgerow_adds(self, client, reference):
        found = client.chat.completions.create(model="tiny", messages=list(self.MESSAGES), n=2)
        (ids,) = reference.encode([list(self.MESSAGES)])
        assert found.usage.prompt_tokens == len(ids)
        assert found.usage.completion_tokens == 6
        assert found.usage.total_tokens == len(ids) + 6
        assert found.hedgerow == {"version": None, "num_valid": [10]}
        assert found.choices[0].logprobs is None

    def test_defaults_to_one_item(self, client):
        assert len(client.chat.completions.create(model="tiny", messages=list(self.MESSAGES)).choices) == 1

    def test_rules(self, client, guarded):
        first = guarded.retrieve(list(self.MESSAGES)).items[0]
        extra = {
            "sets": ["made"],
            "exclude": [first],
            "beam_width": 20,
            "order_by": ["price", "ascending"],
            "caps": {"year": 1},
            "fields": ["title"],
            "deadline_ms": 20_000,
        }
        found = client.chat.completions.create(
            model="tiny", messages=list(self.MESSAGES), n=5, extra_body={"hedgerow": extra}
        )
        expected = guarded.retrieve(list(self.MESSAGES), k=5, **extra).document["items"]
        assert [choice.hedgerow for choice in found.choices] == expected
        assert list(expected[0]["attributes"]) == ["title"]

    def test_neutral_options_change_nothing(self, client):
        plain = client.chat.completions.create(model="tiny", messages=list(self.MESSAGES), n=3)
        found = client.chat.completions.create(
            model="tiny",
            messages=list(self.MESSAGES),
            n=3,
            top_p=1,
            presence_penalty=0,
            frequency_penalty=0,
            max_tokens=5,
            seed=3,
            stream=False,
            temperature=1,
            response_format={"type": "text"},
        )
        assert [choice.hedgerow for choice in found.choices] == [choice.hedgerow for choice in plain.choices]


class TestCompletions:
    def test_one_prompt(self, client, guarded):
        found = client.completions.create(model="tiny", prompt="w5 w6", n=3, logprobs=1)
        items = guarded.retrieve("w5 w6", k=3).document["items"]
        assert found.object == "text_completion"
        assert found.id.startswith("cmpl-")
        for choice, item in zip(found.choices, items, strict=True):
            assert choice.text == code_text(item["sid"])
            assert choice.hedgerow == item
            tokens, offsets = choice.logprobs.tokens, choice.logprobs.text_offset
            assert "".join(tokens) == choice.text
            assert offsets == [0, *np.cumsum([len(token) for token in tokens[:-1]]).tolist()]
            assert math.fsum(choice.logprobs.token_logprobs) == pytest.approx(item["score"], abs=1e-4)

    def test_lists_of_prompts(self, client, guarded):
        prompts = [[5, 6], [7], [8, 9, 10]]
        for given in (prompts, [text_of(prompt) for prompt in prompts]):
            found = client.completions.create(model="tiny", prompt=given, n=2)
            assert [choice.index for choice in found.choices] == list(range(6))
            expected = [item for prompt in prompts for item in guarded.retrieve(prompt, k=2).document["items"]]
            ids = [choice.hedgerow["item_id"] for choice in found.choices]
            assert ids == [item["item_id"] for item in expected]
            assert found.usage.prompt_tokens == 6
            assert found.hedgerow["num_valid"] == [10, 10, 10]

    def test_one_prompt_of_token_ids(self, client, guarded):
        found = client.completions.create(model="tiny", prompt=[5, 6], n=2)
        assert [choice.hedgerow["item_id"] for choice in found.choices] == guarded.retrieve([5, 6], k=2).items


class TestModels:
    def test_list_and_one(self, client):
        (model,) = client.models.list().data
        assert (model.id, model.object, model.owned_by) == ("tiny", "model", "hedgerow")
        assert client.models.retrieve("tiny") == model


class TestErrors:
    def create(self, client, **options):
        return client.chat.completions.create(
            **({"model": "tiny", "messages": [{"role": "user", "content": "w5"}]} | options)
        )

    @pytest.mark.parametrize(
        ("options", "param"),
        [
            ({"n": 0}, "n"),
            ({"n": 1_001}, "k"),
            ({"top_p": 0.5}, "top_p"),
            ({"stop": ["x"]}, "stop"),
            ({"logit_bias": {"5": 1}}, "logit_bias"),
            ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
            ({"response_format": {"type": "json_object"}}, "response_format"),
            ({"messages": []}, "messages"),
            ({"messages": [{"content": "w5"}]}, "messages"),
            ({"extra_body": {"top_k": 5}}, "top_k"),
            ({"extra_body": {"hedgerow": {"set": ["recent"]}}}, "hedgerow"),
            ({"extra_body": {"hedgerow": {"beam_width": 21}}}, "beam_width"),
            ({"extra_body": {"hedgerow": {"where": "year > 1"}}}, "where"),
            ({"extra_body": {"hedgerow": {"fields": ["nothing"]}}}, "fields"),
        ],
    )
    def test_bad_requests(self, options, param, client):
        with pytest.raises(openai.BadRequestError) as refused:
            self.create(client, **options)
        assert refused.value.param.split(".")[0] == param
        assert refused.value.type == "invalid_request_error"
        assert refused.value.code
        assert refused.value.request_id

    def test_streams(self, client):
        with pytest.raises(openai.BadRequestError, match="stream=True is not supported"):
            self.create(client, stream=True)

    def test_names_of_nothing(self, client):
        for options in ({"model": "other"}, {"extra_body": {"hedgerow": {"sets": ["nothing"]}}}):
            with pytest.raises(openai.NotFoundError):
                self.create(client, **options)
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("other")
        with pytest.raises(openai.NotFoundError):
            client.embeddings.create(model="tiny", input="w5")

    def test_too_long(self, client):
        with pytest.raises(openai.APIStatusError) as refused:
            self.create(client, messages=[{"role": "user", "content": "w5 " * 41}])
        assert (refused.value.status_code, refused.value.code) == (413, "prompt_too_long")

    def test_too_many_prompts(self, client):
        with pytest.raises(openai.BadRequestError, match="at most 64 prompts; got 65"):
            client.completions.create(model="tiny", prompt=["w5"] * 65)

    def test_one_bad_prompt_of_several(self, client):
        with pytest.raises(openai.BadRequestError, match="empty"):
            client.completions.create(model="tiny", prompt=["w5", ""])
        for prompt in ([], [[]], [[], [5]]):
            with pytest.raises(openai.BadRequestError):
                client.completions.create(model="tiny", prompt=prompt)

    def test_token(self, guarded):
        with (
            openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="wrong", max_retries=0) as stranger,
            pytest.raises(openai.AuthenticationError),
        ):
            stranger.models.list()

    def test_deadlines(self, client):
        with pytest.raises(openai.InternalServerError) as refused:
            self.create(client, extra_body={"hedgerow": {"deadline_ms": 1e-6}})
        assert (refused.value.status_code, refused.value.code) == (504, "deadline")

    def test_body_larger_than_the_queue_and_cold_service(self):
        service = service_of(settings=replace(SETTINGS, queue=1))
        with (
            started(service) as client,
            openai.OpenAI(base_url=f"{client.url}/v1", api_key="none", max_retries=0) as caller,
        ):
            with pytest.raises(openai.BadRequestError, match="a body with 2 never fits"):
                caller.completions.create(model="tiny", prompt=["w5", "w6"])
            service.drain()
            with pytest.raises(openai.InternalServerError) as refused:
                caller.completions.create(model="tiny", prompt="w5")
            assert refused.value.status_code == 503


def test_the_prompts_of_one_request_are_answered_by_one_version(tmp_path, monkeypatch):
    """The answer names one version, so a switch between two of its batches must not mix two."""
    live = hr.LiveIndex.create(tmp_path / "things.live", index(), headroom=1.5)
    service = service_of(live, replace(SETTINGS, max_batch=1))
    with started(service) as client:
        engine, answer = service.engine, service.engine.answer
        live.remove([client.retrieve([7]).items[0]])

        def switch_after_the_first(asks):
            outcomes = answer(asks)
            if engine.current.number == 1:
                service.follower.refresh()
            return outcomes

        monkeypatch.setattr(engine, "answer", switch_after_the_first)
        document = client.post("/v1/completions", {"model": "tiny", "prompt": [[5], [7]]}).document
        version = document["hedgerow"]["version"]
        for number, prompt in enumerate(([5], [7])):
            (outcome,) = answer([ask_of(prompt, k=1, version=version)])
            assert document["choices"][number]["hedgerow"]["item_id"] == outcome.results.item_ids[0]  # type: ignore[union-attr]
