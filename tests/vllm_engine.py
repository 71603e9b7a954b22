"""Tiny models that vLLM's CPU attention can run, a catalog of their tokens, and the environment of vLLM."""

import os
from pathlib import Path
from typing import Any

SIZES = {"levels": 3, "codes": 32, "words": 100, "items": 400}
CONFIG: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 128,
    "pad_token_id": 255,
    "eos_token_id": 254,
    "bos_token_id": None,
}
LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("Qwen3", {"tie_word_embeddings": True}),
    "llama": ("Llama", {"attention_bias": True}),
    "gemma3": ("Gemma3", {"sliding_window": 12, "layer_types": LAYERS, "query_pre_attn_scalar": 32}),
    "qwen2": ("Qwen2", {"hidden_size": 128, "layer_types": ["full_attention"] * 3}),
    "granite": ("Granite", {"hidden_size": 128, "logits_scaling": 3.0, "attention_multiplier": 0.2}),
}
RULES = '[sets]\nlow = "number < 40"\nthird = "number % 3 = 0"\nnone = "number < 0"\n'
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_PLUGINS": "hedgerow",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]),
}


def new_catalog(seed: int = 0) -> Any:
    """Items with a number; some share a SID."""
    import numpy as np

    import hedgerow as hr

    rng = np.random.default_rng(seed)
    codes, count = SIZES["codes"], SIZES["items"]
    sids = np.stack([np.minimum(rng.zipf(1.4, count) - 1, codes - 1), *rng.integers(0, codes, (2, count))], axis=1)
    sids[-20:] = sids[:20]
    attributes = {"number": np.arange(count) % 100, "title": [f"item {row}" for row in range(count)]}
    ids = [f"i{row}" for row in range(count)]
    return hr.Catalog(sids, codebook_sizes=codes, item_ids=ids, attributes=attributes)


def new_tokenizer() -> Any:
    """Words w0 to w99, then the codes of each level."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [f"w{number}" for number in range(SIZES["words"])]
    codes = [f"<{'abc'[level]}_{code}>" for level in range(SIZES["levels"]) for code in range(SIZES["codes"])]
    names = [*words, *codes]
    names += [f"<unused_{number}>" for number in range(CONFIG["vocab_size"] - len(names) - 2)] + ["</s>", "<pad>"]
    vocabulary = {name: number for number, name in enumerate(names)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unused_0>"))
    parts = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("<[^>]*>"), "isolated")]
    backend.pre_tokenizer = pre_tokenizers.Sequence(parts)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="<pad>")


def save_model(family: str, folder: Path, **delimiters: Any) -> Any:
    """Write a random model with its tokenizer and its tokens, and return the tokens."""
    import torch
    import transformers

    import hedgerow as hr

    name, changes = FAMILIES[family]
    config_class = getattr(transformers, "Gemma3TextConfig" if name == "Gemma3" else f"{name}Config")
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(config_class(**(CONFIG | changes)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.25)
    model.save_pretrained(folder)
    new_tokenizer().save_pretrained(folder)
    starts = [SIZES["words"] + level * SIZES["codes"] for level in range(SIZES["levels"])]
    tokens = hr.TokenMap.from_offsets(starts, codebook_sizes=SIZES["codes"], **delimiters)
    tokens.save(folder)
    return tokens
