"""All kinds of prompts, and their batches."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hedgerow as hr

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from tiny import TOKENS, index, model_of, tokenizer, word_tokenizer
from tokenizers import normalizers

from hedgerow.hf import Retriever
from hedgerow.hf.prompts import batches, padded
from hedgerow.hf.reading import PromptReader

TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }} {% endfor %}{% if add_generation_prompt %}w9{% endif %}"
)


@pytest.fixture(scope="module")
def retriever():
    return Retriever(model_of("llama"), index(), TOKENS, tokenizer=tokenizer())


@pytest.fixture(scope="module")
def chatting():
    words = word_tokenizer({"<unk>": 0} | {f"w{word}": word for word in range(1, 20)})
    words.chat_template = TEMPLATE
    return Retriever(model_of("llama"), index(), TOKENS, tokenizer=words)


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ("w3 w4", [[3, 4]]),
        (["w3 w4", "w5"], [[3, 4], [5]]),
        (("w3 w4", "w5"), [[3, 4], [5]]),
        ([3, 4], [[3, 4]]),
        ((3, 4), [[3, 4]]),
        ([np.int64(3), 4], [[3, 4]]),
        ([[3, 4], [5]], [[3, 4], [5]]),
        ([[3, 4], "w5"], [[3, 4], [5]]),
        (np.asarray([3, 4]), [[3, 4]]),
        (np.asarray([[3, 4], [5, 6]]), [[3, 4], [5, 6]]),
        (np.asarray(["w3 w4", "w5"]), [[3, 4], [5]]),
        (torch.tensor([3, 4]), [[3, 4]]),
        (torch.tensor([[3, 4], [5, 6]]), [[3, 4], [5, 6]]),
        ([torch.tensor([3, 4]), np.asarray([5])], [[3, 4], [5]]),
        ({"input_ids": [[3, 4], [5]]}, [[3, 4], [5]]),
        ({"input_ids": [3, 4], "attention_mask": [1, 1]}, [[3, 4]]),
        ({"input_ids": torch.tensor([0, 4]), "attention_mask": torch.tensor([0, 1])}, [[4]]),
        ({"input_ids": np.asarray([[0, 3], [5, 6]]), "attention_mask": np.asarray([[0, 1], [1, 1]])}, [[3], [5, 6]]),
        (
            {"input_ids": torch.tensor([[3, 0], [5, 6]]), "attention_mask": torch.tensor([[1, 0], [1, 1]])},
            [[3], [5, 6]],
        ),
        ({"input_ids": [[3, 4]], "attention_mask": None}, [[3, 4]]),
        ({"input_ids": [[3, 4]], "attention_mask": torch.tensor([[True, False]])}, [[3]]),
        ({"input_ids": [[3, 4]], "attention_mask": [[1.0, 0.0]]}, [[3]]),
    ],
)
def test_kinds_of_prompts(retriever, prompts, expected):
    assert retriever.encode(prompts) == expected


def test_rejects_bytes():
    with pytest.raises(hr.ArgumentError, match="must be text"):
        PromptReader()(b"hi")


def test_output_of_a_tokenizer(retriever):
    words = word_tokenizer({"<unk>": 0, "<pad>": 1} | {f"w{word}": word for word in range(2, 20)})
    words.pad_token = "<pad>"
    for options in ({"padding": True, "return_tensors": "pt"}, {"padding": True, "return_tensors": "np"}, {}):
        assert retriever.encode(words(["w3 w4", "w5"], **options)) == [[3, 4], [5]]
    assert retriever.encode(words("w3 w4")) == [[3, 4]]
    words.padding_side = "left"
    assert retriever.encode(words(["w3 w4", "w5"], padding=True, return_tensors="pt")) == [[3, 4], [5]]


def test_a_tokenizer_of_the_tokenizers_library():
    retriever = Retriever(model_of("llama"), index(), TOKENS, tokenizer=tokenizer().backend_tokenizer)
    assert retriever.encode(["w3 w4", "w5"]) == [[3, 4], [5]]


def test_chats(chatting):
    chat = [{"role": "assistant", "content": "w3 w4"}, {"role": "user", "content": "w5"}]
    assert chatting.encode(chat) == [[3, 4, 5, 9]]
    assert chatting.encode([chat, chat[1:]]) == [[3, 4, 5, 9], [5, 9]]
    assert chatting.encode([chat, "w7", [8]]) == [[3, 4, 5, 9], [7], [8]]


def test_a_last_message_of_the_assistant_begins_its_reply(chatting):
    assert chatting.encode([{"role": "user", "content": "w3 w4"}, {"role": "assistant", "content": "w5"}]) == [
        [3, 4, 5]
    ]


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        (None, "prompt 0 must be text, a chat .* got NoneType"),
        ([[1, 2], None], "prompt 1 must be text"),
        ([[1, "w3"]], r"prompt 0 must be text, .* got list"),
        ([[1.0, 2.0]], "prompt 0 must be text"),
        ([True, False], "prompt 0 must be text"),
        ({"text": "w3"}, "prompt 0"),
        ([[3], [[4]]], "prompt 1 must be text"),
        ({"input_ids": None}, "input_ids must be a list, or a list of lists, .* got NoneType"),
        ({"input_ids": 5}, "input_ids must be a list, .* got int"),
        ({"input_ids": torch.tensor(5)}, "input_ids must be a list, .* got Tensor"),
        ({"input_ids": "w3"}, "input_ids must be a list, .* got str"),
        ({"input_ids": [[1, 2], None]}, "input_ids must be a list, .* got NoneType"),
        ({"input_ids": [[1, 2]], "attention_mask": [1, 1]}, "attention_mask must be a list, .* got int"),
        ({"input_ids": [1, 2], "attention_mask": [[1, 1]]}, "have different shapes"),
        ({"input_ids": [[1, 2]], "attention_mask": torch.ones(1, 1, 2, 2)}, "have different shapes"),
        ({"input_ids": [[1, 2]], "attention_mask": torch.ones(1, 2, 2)}, "attention_mask must contain 1 for tokens"),
        ({"input_ids": [1, 2], "attention_mask": [0, -1e9]}, "attention_mask must contain 1 .* got -1000000000.0"),
        ({"input_ids": [[1, 2]], "attention_mask": torch.tensor([[1.0, torch.nan]])}, "must contain 1 .* got nan"),
    ],
)
def test_rejects_other_types(retriever, prompts, expected):
    with pytest.raises(hr.ArgumentError, match=expected):
        retriever.encode(prompts)


def test_chat_without_a_template(retriever):
    with pytest.raises(hr.ArgumentError, match=r"chat template cannot format prompt 1"):
        retriever.encode(["w3", [{"role": "user", "content": "w3"}]])


def test_text_without_a_tokenizer():
    retriever = Retriever(model_of("llama"), index(), TOKENS)
    with pytest.raises(hr.ArgumentError, match="prompt 1 is text, and there is no tokenizer"):
        retriever.encode([[3], "w3"])


@pytest.mark.parametrize("backend", [False, True])
def test_text_without_tokens(backend):
    words = word_tokenizer({"<unk>": 0, "w1": 1})
    words.backend_tokenizer.normalizer = normalizers.Replace("?", "")  # type: ignore[assignment]
    retriever = Retriever(model_of("llama"), index(), TOKENS, tokenizer=words.backend_tokenizer if backend else words)
    assert retriever.encode("w1 ?") == [[1]]
    with pytest.raises(hr.ArgumentError, match="prompt 1 is empty: the tokenizer returned no tokens for it"):
        retriever.encode(["w1", "?"])


@given(
    lengths=st.lists(st.integers(1, 30), max_size=20),
    beam_tokens=st.integers(0, 40),
    max_tokens=st.sampled_from([1, 50, 200]),
)
def test_batches_contain_every_prompt_once_within_the_limit(lengths, beam_tokens, max_tokens):
    prompts = [[1] * length for length in lengths]
    made = list(batches(prompts, beam_tokens=beam_tokens, max_tokens=max_tokens))
    assert sorted(row for rows in made for row in rows) == list(range(len(lengths)))
    for rows in made:
        assert len(rows) == 1 or len(rows) * (max(lengths[row] for row in rows) + beam_tokens) <= max_tokens
    for rows, following in pairwise(made):
        longest = max(lengths[row] for row in rows)
        assert (len(rows) + 1) * (longest + beam_tokens) > max_tokens, "one more prompt would fit"
        assert min(lengths[row] for row in rows) >= max(lengths[row] for row in following)


def test_padding_is_on_the_right():
    ids, lengths = padded([[5, 6, 7], [8]], torch.device("cpu"))
    assert (ids.tolist(), lengths.tolist()) == ([[5, 6, 7], [8, 0, 0]], [3, 1])
    assert padded([[5]], torch.device("cpu"), length=4)[0].tolist() == [[5, 0, 0, 0]]
