"""The model: a Qwen3 that reads one token an item, and writes an item's codes.

Tokens: 0 begins a sequence; then come the codes of every level; then one token for each of the N items. While it is
trained, the embedding of an item is a projection of its text's embedding plus its codes' embeddings, and a code's, on
both ends of the model, a projection of its centroid. So nothing in it belongs to one item, and a cold item is read as
well as a warm one. `exported` writes all of that into the plain tables of a `Qwen3ForCausalLM`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen3Config, Qwen3ForCausalLM

import hedgerow as hr
from coldstart.content import Content

BEGIN = 0


@dataclass(frozen=True)
class Size:
    """How large a model is."""

    hidden: int
    layers: int
    heads: int
    dropout: float


SIZES = {"small": Size(192, 3, 3, 0.1), "large": Size(640, 12, 10, 0.2)}


@dataclass(frozen=True)
class Recipe:
    """What of the method is in a run; each is left out in one row of the ablation table.

    Attributes:
        content: the prompt has the text's embedding of an item, beside its codes.
        tied: a code's embeddings are projections of its centroid; else they are learnt, each on its own.
        prefix_loss: the first code of the next item is learnt at every place of a history, and not only where the
            whole SID is.
        codebooks: C of every level.
    """

    content: bool = True
    tied: bool = True
    prefix_loss: bool = True
    codebooks: tuple[int, ...] = (4096, 256, 256)


def token_map(codebooks: tuple[int, ...]) -> hr.TokenMap:
    """Returns the tokens of codes."""
    return hr.TokenMap.from_offsets(list(offsets(codebooks)[:-1]), codebook_sizes=codebooks)


def offsets(codebooks: tuple[int, ...]) -> np.ndarray:
    """Returns the first token of every level, and after them the first of the items."""
    return BEGIN + 1 + np.concatenate([[0], np.cumsum(codebooks)])


class Network(nn.Module):
    """What is trained."""

    texts: Tensor
    centroids: Tensor
    codes: Tensor

    def __init__(self, content: Content, size: Size, recipe: Recipe) -> None:
        super().__init__()
        self.starts, width, dim = offsets(content.codebook_sizes), size.hidden, content.embeddings.shape[1]
        self.config = Qwen3Config(
            vocab_size=int(self.starts[-1]) + len(content.sids),
            hidden_size=width,
            intermediate_size=width * 5 // 2,
            num_hidden_layers=size.layers,
            max_position_embeddings=64,
            tie_word_embeddings=False,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads,
            head_dim=width // size.heads,
            bos_token_id=BEGIN,
        )
        # Sequences are short and many: that is faster than the fused attention, on a CPU.
        small = Qwen3Config(**(self.config.to_dict() | {"vocab_size": 1, "attn_implementation": "eager"}))
        self.core = Qwen3ForCausalLM(small).model
        self.dropout, self.recipe = size.dropout, recipe
        books = zip(content.quantizer.codebooks, content.codebook_sizes, strict=True)
        centroids = np.concatenate([_scaled(book, size) for book, size in books])
        self.register_buffer("texts", torch.from_numpy(content.embeddings), persistent=False)
        self.register_buffer("centroids", torch.from_numpy(centroids), persistent=False)
        self.register_buffer("codes", torch.from_numpy(content.sids + self.starts[:-1] - 1).long(), persistent=False)
        self.begin = nn.Parameter(torch.randn(width) * 0.02)
        # Both ends begin in the main axes of the texts, so that what is alike in content is alike from the first step.
        axes = _main_axes(content.quantizer.codebooks[0], width)
        self.read_text = nn.Linear(dim, width)
        self.read_code, self.write_code = nn.Linear(dim, width, bias=False), nn.Linear(dim, width, bias=False)
        with torch.no_grad():
            self.read_text.bias.zero_()
            for layer, scale in ((self.read_text, 1.0), (self.read_code, 1.0), (self.write_code, 0.5)):
                layer.weight.copy_(axes * scale)
        if not recipe.tied:
            self.free_in = nn.Parameter(torch.randn(len(centroids), width) * 0.02)
            self.free_out = nn.Parameter(torch.randn(len(centroids), width) * 0.02)

    def inputs(self) -> Tensor:
        """Returns the embedding [V, d] of every token."""
        codes = self.read_code(self.centroids) if self.recipe.tied else self.free_in
        items = functional.embedding(self.codes, codes).sum(dim=1) / 2
        if self.recipe.content:
            items = items + self.read_text(self.texts)
        return torch.cat([self.begin[None], codes, items])

    def outputs(self) -> Tensor:
        """Returns the head's row [codes, d] of every code."""
        return self.write_code(self.centroids) if self.recipe.tied else self.free_out

    def logits(self, hidden: Tensor, level: int) -> Tensor:
        """Returns logits [..., C] of one level's codes."""
        begin, end = self.starts[level] - 1, self.starts[level + 1] - 1
        return hidden @ self.outputs()[begin:end].T

    @torch.no_grad()
    def exported(self) -> Qwen3ForCausalLM:
        """Returns the same model as any program of transformers reads it."""
        plain = Qwen3ForCausalLM(self.config).eval()
        plain.model.load_state_dict({"embed_tokens.weight": self.inputs().float()} | _without_table(self.core))
        head = torch.zeros_like(plain.lm_head.weight)
        head[BEGIN + 1 : self.starts[-1]] = self.outputs().float()
        plain.lm_head.weight.copy_(head)
        return plain


def _without_table(core: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in core.state_dict().items() if not name.startswith("embed_tokens")}


def _scaled(book: np.ndarray, size: int) -> np.ndarray:
    """Returns the centroids of a level at a length of about 1, so that no level is read louder than another.

    Codes that too few items left without a centroid have noughts.
    """
    length = np.sqrt((book**2).sum(axis=1).mean()).clip(1e-6)
    return np.pad(book / length, ((0, size - len(book)), (0, 0)))


def _main_axes(centroids: np.ndarray, width: int) -> Tensor:
    """Returns the `width` main axes [width, D] of centroids, which are warm; noughts where they have fewer."""
    _, _, axes = np.linalg.svd(centroids, full_matrices=False)
    return torch.from_numpy(np.pad(axes[:width], ((0, max(0, width - len(axes))), (0, 0))))
