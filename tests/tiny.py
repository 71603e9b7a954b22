"""Tiny random models of transformers, a catalog whose codes are tokens of them, and references to compare with."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import hedgerow as hr

VOCABULARY = 300
CODES = 20
OFFSETS = (200, 230, 260)
WORDS = 200
TOKENS = hr.TokenMap.from_offsets(OFFSETS, CODES)
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
SHAPES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", SIZES | {"head_dim": 8}),
    "llama": ("LlamaConfig", "LlamaForCausalLM", SIZES),
    "gemma3": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        SIZES | {"head_dim": 8, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "gemma2": (
        "Gemma2Config",
        "Gemma2ForCausalLM",
        SIZES | {"head_dim": 8, "sliding_window": 6, "final_logit_softcapping": 2.0},
    ),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", GPT2),
    "mistral": ("MistralConfig", "MistralForCausalLM", SIZES | {"sliding_window": 5}),
    "phi": ("PhiConfig", "PhiForCausalLM", SIZES | {"num_key_value_heads": 4}),
    "granite": ("GraniteConfig", "GraniteForCausalLM", SIZES | {"logits_scaling": 3.0}),
    "phi3": (
        "Phi3Config",
        "Phi3ForCausalLM",
        SIZES
        | {
            "num_key_value_heads": 4,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "original_max_position_embeddings": 32,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10_000.0,
                "short_factor": [1.0] * 4,
                "long_factor": [4.0] * 4,
                "original_max_position_embeddings": 32,
            },
        },
    ),
    "bloom": ("BloomConfig", "BloomForCausalLM", {"vocab_size": VOCABULARY, "hidden_size": 32, "n_head": 4}),
    "mamba": (
        "MambaConfig",
        "MambaForCausalLM",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    ),
    "t5": (
        "T5Config",
        "T5ForConditionalGeneration",
        {
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 1,
            "num_heads": 4,
            "decoder_start_token_id": 0,
            "pad_token_id": 0,
        },
    ),
    "gpt_neo": (
        "GPTNeoConfig",
        "GPTNeoForCausalLM",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 16,
            "max_position_embeddings": 64,
        },
    ),
}


def new_model(name: str, *, attention: str | None = None, **changes: Any) -> Any:
    """Create a model of SHAPES with random weights, with so much variance that attention matters."""
    config, model_class, sizes = SHAPES[name]
    implementation = {"attn_implementation": attention} if attention else {}
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(getattr(transformers, config)(**(sizes | implementation | changes)))
    with torch.no_grad():
        for parameter, weights in model.named_parameters():
            if weights.ndim > 1 or parameter.endswith("bias"):
                weights.normal_(0, 0.25)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    return model.eval()


@cache
def model_of(name: str, attention: str | None = None) -> Any:
    """As `new_model`, created once. Do not change it."""
    return new_model(name, attention=attention)


@cache
def catalog() -> hr.Catalog:
    """150 items with SIDs of three codes; some items share a SID."""
    sids = np.random.default_rng(0).integers(0, CODES, (150, 3))
    sids[-10:] = sids[:10]
    return hr.Catalog(sids, codebook_sizes=CODES, item_ids=[f"item {row}" for row in range(150)])


@cache
def index() -> hr.TrieIndex:
    return hr.build_index(catalog())


@cache
def complete_index() -> hr.TrieIndex:
    """The index of all combinations of codes, which constrains nothing."""
    return hr.build_index(hr.Catalog(np.indices((CODES,) * 3).reshape(3, -1).T, codebook_sizes=CODES))


def prompts_of(*lengths: int, seed: int = 1) -> list[list[int]]:
    """Prompts of random words, of these lengths."""
    rng = np.random.default_rng(seed)
    return [rng.integers(1, WORDS, length).tolist() for length in lengths]


def allowed_tokens(sids: Any, tokens: hr.TokenMap) -> dict[tuple[int, ...], list[int]]:
    """The tokens that may follow each prefix of a SID, both as tokens, by brute force."""
    follow: dict[tuple[int, ...], set[int]] = {}
    for sid in tokens.encode(np.asarray(sids)).tolist():
        for level, token in enumerate(sid):
            follow.setdefault(tuple(sid[:level]), set()).add(token)
    return {prefix: sorted(ids) for prefix, ids in follow.items()}


def generate(model: Any, prompt: list[int], **options: Any) -> Any:
    """Run `generate` as the reference: beams without length penalty, all of them returned."""
    beams = options.pop("num_beams", 1)
    output = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones((1, len(prompt)), dtype=torch.int64),
        do_sample=False,
        num_beams=beams,
        num_return_sequences=beams,
        length_penalty=0.0,
        output_scores=True,
        return_dict_in_generate=True,
        **options,
    )
    return output.sequences[:, len(prompt) :].tolist(), output.sequences_scores.tolist()


def generated(model: Any, prompt: list[int], beam_width: int, sids: Any, tokens: hr.TokenMap) -> dict[tuple, float]:
    """The SIDs that `generate` finds for a prompt, and their scores."""
    follow = allowed_tokens(sids, tokens)
    answers, scores = generate(
        model,
        prompt,
        num_beams=beam_width,
        max_new_tokens=tokens.num_levels,
        prefix_allowed_tokens_fn=lambda _, ids: follow[tuple(ids[len(prompt) :].tolist())],
    )
    return dict(zip(map(tuple, tokens.decode(answers).tolist()), scores, strict=True))


def scores_by_sid(results: hr.Results) -> dict[tuple, float]:
    return dict(zip(map(tuple, results.sids.tolist()), results.scores.tolist(), strict=True))


def assert_same_scores(scores: dict[tuple, float], expected: dict[tuple, float], tolerance: float = 1e-4) -> None:
    assert set(scores) == set(expected)
    np.testing.assert_allclose([scores[sid] for sid in expected], list(expected.values()), rtol=0, atol=tolerance)


@lru_cache(10_000)
def last_logits(model: Any, ids: tuple[int, ...]) -> torch.Tensor:
    """Float64 logits [V] after token ids, by the model's own forward pass."""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1].double()


def log_probs(
    model: Any,
    ids: list[int],
    level: int,
    normalize: str,
    allowed: Any,
    tokens: hr.TokenMap,
    *,
    temperature: float = 1.0,
) -> Any:
    """Float64 log-probabilities of a level's codes after token ids."""
    logits, table = last_logits(model, tuple(ids)) / temperature, torch.tensor(tokens.token_ids[level])
    codes = logits[table.clamp(min=0)].masked_fill(table < 0, -torch.inf)
    counted = {"vocab": logits, "codes": codes, "allowed": codes[torch.as_tensor(allowed)]}[normalize]
    return (codes - counted.logsumexp(0)).numpy()


def path_scores(
    model: Any,
    prompt: list[int],
    sid: list[int],
    index: hr.TrieIndex,
    tokens: hr.TokenMap,
    normalize: str,
    *,
    temperature: float = 1.0,
) -> list[float]:
    """The score of each prefix of a SID."""
    ids = [*prompt, *tokens.encode([sid])[0].tolist()]
    scores = []
    for level, code in enumerate(sid):
        rest = (level, normalize, index.allowed_codes(sid[:level]), tokens)
        scores.append(log_probs(model, ids[: len(prompt) + level], *rest, temperature=temperature)[code])
    return np.cumsum(scores).tolist()


def exhaustive(
    model: Any,
    prompt: list[int],
    index: hr.TrieIndex,
    tokens: hr.TokenMap,
    *,
    beam_width: int,
    normalize: str,
    temperature: float = 1.0,
) -> list[list[tuple[tuple[int, ...], float]]]:
    """The candidates of every level with their scores, best first, of a search that keeps `beam_width` of them."""
    return _exhaustive(model, tuple(prompt), index, tokens, beam_width, normalize, temperature)


@lru_cache(100)
def _exhaustive(
    model: Any,
    prompt: tuple[int, ...],
    index: hr.TrieIndex,
    tokens: hr.TokenMap,
    beam_width: int,
    normalize: str,
    temperature: float,
) -> list[list[tuple[tuple[int, ...], float]]]:
    levels: list[list[tuple[tuple[int, ...], float]]] = []
    beams: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    for level in range(index.num_levels):
        candidates = []
        for prefix, score in beams:
            ids = [*prompt, *(int(tokens.token_ids[number][code]) for number, code in enumerate(prefix))]
            allowed = index.allowed_codes(prefix)
            steps = log_probs(model, ids, level, normalize, allowed, tokens, temperature=temperature)
            candidates += [((*prefix, code), score + float(steps[code])) for code in allowed.tolist()]
        levels.append(sorted(candidates, key=lambda candidate: -candidate[1]))
        beams = levels[-1][:beam_width]
    return levels


def word_tokenizer(tokens: dict[str, int]) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words: the keys of `tokens`."""
    words = Tokenizer(models.WordLevel(tokens, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of the models: words w1 to w199, and tokens in OneRec's layout for the codes of `TOKENS`."""
    words = {"<unk>": 0} | {f"w{word}": word for word in range(1, WORDS)}
    for level, first in zip("abc", OFFSETS, strict=True):
        words |= {f"<s_{level}_{code}>": first + code for code in range(CODES)}
    return word_tokenizer(words)


def assert_same_results(got: Any, expected: hr.Results) -> None:
    """Check that an answer has the items of other results."""
    assert isinstance(got, hr.Results)
    assert got.item_ids == expected.item_ids
    np.testing.assert_array_equal(got.rows, expected.rows)
    np.testing.assert_allclose(got.scores, expected.scores, rtol=1e-4)
