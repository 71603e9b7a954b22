"""Padding without a mask, special tokens that a tokenizer adds, and options of chat templates."""

import warnings

import numpy as np
import pytest

import hedgerow as hr

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from tiny import TOKENS, assert_same_scores, index, model_of, new_model, scores_by_sid, tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from hedgerow.hf import Retriever

PAD, EOS, BOS = 191, 192, 193
ROWS = {"left": [[PAD, PAD, 5, 6], [7, 8, 9, 10]], "right": [[5, 6, PAD, PAD], [7, 8, 9, 10]]}
RIGHT = [[5, 6], [7, 8, 9, 10]]


def retriever_of(*, pad: int | None = PAD, eos: int | list[int] | None = EOS, **options) -> Retriever:
    model = new_model("llama")
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = pad, eos
    return Retriever(model, index(), TOKENS, **options)


class TestPadding:
    @pytest.mark.parametrize("side", ROWS)
    @pytest.mark.parametrize("kind", [list, np.asarray, torch.tensor, lambda rows: {"input_ids": torch.tensor(rows)}])
    def test_padded_ids_without_a_mask(self, side, kind):
        assert retriever_of().encode(kind(ROWS[side])) == RIGHT
        assert retriever_of().encode(kind(ROWS[side][:1])) == RIGHT[:1]

    def test_equals_generate_without_a_mask(self):
        """generate() takes every pad token for padding, also within a prompt."""
        retriever = retriever_of()
        ids = torch.tensor([[PAD, 5, PAD, 6], [7, 8, 9, 10]])
        mask = retriever.model._prepare_attention_mask_for_generation(ids, prepared(retriever.model), {})
        expected = [row[shown.bool()].tolist() for row, shown in zip(ids, mask, strict=True)]
        assert retriever.encode(ids) == expected == [[5, 6], [7, 8, 9, 10]]
        for results, alone in zip(retriever.retrieve(ids), retriever.retrieve(expected), strict=True):
            assert_same_scores(scores_by_sid(results), scores_by_sid(alone))

    def test_the_pad_token_of_the_tokenizer(self):
        words = tokenizer()
        retriever = retriever_of(pad=None, tokenizer=words)
        assert retriever.encode([[0, 5], [6, 7]]) == [[0, 5], [6, 7]]
        padding = PreTrainedTokenizerFast(tokenizer_object=words.backend_tokenizer, pad_token="w191")
        assert retriever_of(pad=None, tokenizer=padding).encode(ROWS["left"]) == RIGHT

    def test_a_mask_decides(self):
        given = {"input_ids": ROWS["left"], "attention_mask": [[0, 1, 1, 1], [1, 1, 1, 1]]}
        assert retriever_of().encode(given) == [[PAD, 5, 6], [7, 8, 9, 10]]

    @pytest.mark.parametrize("side", ROWS)
    @pytest.mark.parametrize("eos", [PAD, [EOS, PAD]])
    def test_a_pad_token_that_ends_texts_is_unclear(self, side, eos):
        retriever = retriever_of(eos=eos)
        with pytest.raises(hr.ArgumentError, match=f"prompt 0 begins or ends with token {PAD}, .*attention_mask"):
            retriever.retrieve(torch.tensor(ROWS[side]))
        with pytest.raises(hr.ArgumentError, match="prompt 0 begins or ends"):
            retriever.retrieve(ROWS[side][:1])
        with pytest.raises(hr.ArgumentError, match="prompt 1 begins or ends"):
            retriever.retrieve([[5, 6], [PAD, 7]])
        # One prompt may begin with the end of a text, as prompts of GPT-2 do; and prompts of several lengths.
        assert retriever.encode([PAD, 5, 6]) == [[PAD, 5, 6]]
        assert retriever.encode([[PAD, 5, 6], [PAD, 7, 8]]) == [[PAD, 5, 6], [PAD, 7, 8]]
        assert retriever.encode([[PAD, 5, 6], [7]]) == [[PAD, 5, 6], [7]]
        mask = torch.tensor(ROWS[side]) != PAD
        assert retriever.encode({"input_ids": ROWS[side], "attention_mask": mask}) == RIGHT

    def test_a_pad_token_that_is_a_code_is_unclear(self):
        code = int(TOKENS.token_ids[1][3])
        retriever = retriever_of(pad=code)
        assert retriever.encode([5, code, 6]) == [[5, code, 6]]
        with pytest.raises(hr.ArgumentError, match=f"prompt 1 begins or ends with token {code}"):
            retriever.encode([[5, 6], [7, code]])
        # These tokens are codes, whatever pads.
        assert retriever.code_logits([[5, 6, 201, code], [5, 6, 201, 240]], level=2).shape == (2, 20)

    def test_all_padding(self):
        with pytest.raises(hr.ArgumentError, match="prompt 1 is empty: all of its tokens are padding"):
            retriever_of().encode([[5, 6], [PAD, PAD]])


def prepared(model):
    config = model.generation_config
    model._prepare_special_tokens(config, False, device="cpu")
    return config


WORDS = {"<unk>": 0, "<bos>": BOS, "<eos>": EOS, "<user>": 3, "<assistant>": 4, "<think>": 5, "</think>": 6} | {
    f"w{word}": word for word in range(8, 190)
}
TEMPLATE = (
    "{{ bos_token }} {% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% if enable_thinking is defined and not enable_thinking %}"
    "<think> </think>{% endif %}{% endif %}"
)


def adding(single: str) -> PreTrainedTokenizerFast:
    """A tokenizer that adds special tokens."""
    made = Tokenizer(models.WordLevel(WORDS, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    made.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=single, special_tokens=[("<bos>", BOS), ("<eos>", EOS), ("<user>", 3), ("<assistant>", 4)]
    )
    names = {"unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, chat_template=TEMPLATE, **names)


def reads(single: str, **options) -> Retriever:
    return Retriever(model_of("llama"), index(), TOKENS, tokenizer=adding(single), **options)


class TestSpecialTokens:
    chat = ({"role": "user", "content": "w9 w10"},)

    def test_text_of_a_template_has_one_beginning(self):
        retriever = reads("<bos> $A")
        text = retriever.tokenizer.apply_chat_template(self.chat, tokenize=False, add_generation_prompt=True)
        expected = [[BOS, 3, 9, 10, 4]]
        assert retriever.encode([list(self.chat)]) == retriever.encode(text) == expected
        assert retriever.encode("w9") == [[BOS, 9]]
        assert retriever.encode("<bos> <bos> w9") == [[BOS, BOS, 9]]
        assert retriever.encode(text, add_special_tokens=False) == expected
        assert retriever.encode(text, add_special_tokens=True) == [[BOS, *expected[0]]]
        assert reads("<bos> $A", add_special_tokens=False).encode("w9") == [[9]]

    def test_a_tokenizer_of_the_tokenizers_library(self):
        words = adding("<bos> $A <eos>").backend_tokenizer
        model = new_model("llama")
        model.generation_config.eos_token_id = [7, EOS]
        retriever = Retriever(model, index(), TOKENS, tokenizer=words)
        with pytest.warns(UserWarning, match=f"appends token {EOS}"):
            assert retriever.encode("<bos> w9") == [[BOS, 9]]
        assert retriever.encode("w9", add_special_tokens=False) == [[9]]

    def test_a_tokenizer_that_pads_all_texts(self):
        words = adding("<bos> $A").backend_tokenizer
        words.enable_padding(length=8, pad_id=PAD, pad_token="w11")
        retriever = Retriever(model_of("llama"), index(), TOKENS, tokenizer=words)
        assert retriever.encode(["w9", "<bos> w9 w10"]) == [[BOS, 9], [BOS, 9, 10]]

    def test_a_tokenizer_without_tokens_for_any_text(self):
        made = Tokenizer(models.WordLevel({"<bos>": BOS, "w9": 9}))
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
        made.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
            single="<bos> $A", special_tokens=[("<bos>", BOS)]
        )
        retriever = Retriever(model_of("llama"), index(), TOKENS, tokenizer=made)
        assert retriever.encode(["w9", "<bos> w9"]) == [[BOS, 9], [BOS, 9]]
        with pytest.raises(hr.ArgumentError, match="the tokenizer cannot encode prompt 1: WordLevel error"):
            retriever.encode(["w9", "w10"])

    def test_an_appended_end_is_left_out_with_a_warning(self):
        retriever = reads("<bos> $A <eos>")
        with pytest.warns(UserWarning, match=f"the tokenizer appends token {EOS} .*add_special_tokens=True") as said:
            assert retriever.encode(["w9 w10", "w11"]) == [[BOS, 9, 10], [BOS, 11]]
        assert len(said) == 1
        # An end that the user wrote stays.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert retriever.encode("w9 <eos>") == [[BOS, 9, EOS]]
        assert reads("<bos> $A <eos>", add_special_tokens=True).encode("w9") == [[BOS, 9, EOS]]
        assert reads("<bos> $A <eos>", add_special_tokens=False).encode("w9") == [[9]]

    def test_other_tokens_at_the_end_stay(self):
        assert reads("<user> $A <assistant>").encode("w9") == [[3, 9, 4]]

    def test_the_encoder_of_t5_reads_the_end(self):
        retriever = Retriever(model_of("t5"), index(), TOKENS, tokenizer=adding("$A <eos>"))
        assert retriever.encode("w9") == [[9, EOS]]


class TestChatTemplates:
    chat = ({"role": "user", "content": "w9"},)

    def test_options_of_the_template(self):
        chat = [list(self.chat)]
        assert reads("$A").encode(chat) == [[BOS, 3, 9, 4]]
        quiet = reads("$A", chat_template_kwargs={"enable_thinking": False})
        assert quiet.encode(chat) == [[BOS, 3, 9, 4, 5, 6]]
        assert quiet.encode(chat, chat_template_kwargs={"enable_thinking": True}) == [[BOS, 3, 9, 4]]
        assert reads("$A").encode(chat, chat_template_kwargs={"enable_thinking": False}) == [[BOS, 3, 9, 4, 5, 6]]
        assert quiet.retrieve(chat)[0].item_ids == quiet.retrieve([BOS, 3, 9, 4, 5, 6])[0].item_ids

    def test_a_begun_reply_is_continued(self):
        begun = [*self.chat, {"role": "assistant", "content": "w11"}]
        assert reads("$A").encode(begun) == [[BOS, 3, 9, 4, 11]]
        asked = {"add_generation_prompt": True, "continue_final_message": False}
        assert reads("$A", chat_template_kwargs=asked).encode(begun) == [[BOS, 3, 9, 4, 11, 4]]

    def test_errors_of_a_template(self):
        with pytest.raises(hr.ArgumentError, match="chat template cannot format prompt 0"):
            reads("$A").encode([*self.chat, {"role": "assistant", "content": None}])
