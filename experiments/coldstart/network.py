"""The model: a Qwen3 that reads one token per item, and generates the codes of an item.

Token 0 begins a sequence. The codes of every level follow, then one token for each of the N items. In training, the
embedding of an item is a projection of its text's embedding plus the embeddings of its codes. The input and output
embeddings of a code are projections of its centroid. No parameter belongs to a single item, so the model reads cold
items as well as warm items. `exported` writes the embeddings into the tables of a `Qwen3ForCausalLM`.
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
    """The size of a model."""

    hidden: int
    layers: int
    heads: int
    dropout: float


SIZES = {"small": Size(192, 3, 3, 0.1), "large": Size(640, 12, 10, 0.2)}


@dataclass(frozen=True)
class Recipe:
    """The parts of the method in a run. Each row of the ablation table omits one of them.

    Attributes:
        content: the input embedding of an item includes the embedding of its text, not only its codes.
        tied: the embeddings of a code are projections of its centroid; otherwise they are learned parameters.
        prefix_loss: the loss includes the first code of the next item at every position of a history, not only at
            those whose whole SID is predicted.
        codebooks: the codebook size of each level.
    """

    content: bool = True
    tied: bool = True
    prefix_loss: bool = True
    codebooks: tuple[int, ...] = (4096, 256, 256)


def token_map(codebooks: tuple[int, ...]) -> hr.TokenMap:
    """The tokens of the codes.

    Args:
        codebooks: the codebook size of each level.
    """
    return hr.TokenMap.from_offsets(list(offsets(codebooks)[:-1]), codebook_sizes=codebooks)


def offsets(codebooks: tuple[int, ...]) -> np.ndarray:
    """The first token of every level, followed by the first token of the items.

    Args:
        codebooks: the codebook size of each level.
    """
    return BEGIN + 1 + np.concatenate([[0], np.cumsum(codebooks)])


class Network(nn.Module):
    """The trained network."""

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
        # For many short sequences on a CPU, eager attention is faster than fused attention.
        small = Qwen3Config(**(self.config.to_dict() | {"vocab_size": 1, "attn_implementation": "eager"}))
        self.core = Qwen3ForCausalLM(small).model
        self.dropout, self.recipe = size.dropout, recipe
        books = zip(content.quantizer.codebooks, content.codebook_sizes, strict=True)
        centroids = np.concatenate([_scaled(book, size) for book, size in books])
        self.register_buffer("texts", torch.from_numpy(content.embeddings), persistent=False)
        self.register_buffer("centroids", torch.from_numpy(centroids), persistent=False)
        self.register_buffer("codes", torch.from_numpy(content.sids + self.starts[:-1] - 1).long(), persistent=False)
        self.begin = nn.Parameter(torch.randn(width) * 0.02)
        # Projections start from the main axes of the texts, so that similar content is similar from the first step.
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
        """The input embedding of every token, [V, hidden size]."""
        codes = self.read_code(self.centroids) if self.recipe.tied else self.free_in
        items = functional.embedding(self.codes, codes).sum(dim=1) / 2
        if self.recipe.content:
            items = items + self.read_text(self.texts)
        return torch.cat([self.begin[None], codes, items])

    def outputs(self) -> Tensor:
        """The output embedding of every code, [codes, hidden size]."""
        return self.write_code(self.centroids) if self.recipe.tied else self.free_out

    def logits(self, hidden: Tensor, level: int) -> Tensor:
        """Logits [..., C] of the codes of a level, for hidden states [..., hidden size]."""
        start, stop = self.starts[level] - 1, self.starts[level + 1] - 1
        return hidden @ self.outputs()[start:stop].T

    @torch.no_grad()
    def exported(self) -> Qwen3ForCausalLM:
        """The same model as a `Qwen3ForCausalLM`, which any program that uses transformers can load."""
        plain = Qwen3ForCausalLM(self.config).eval()
        plain.model.load_state_dict({"embed_tokens.weight": self.inputs().float()} | _without_table(self.core))
        head = torch.zeros_like(plain.lm_head.weight)
        head[BEGIN + 1 : self.starts[-1]] = self.outputs().float()
        plain.lm_head.weight.copy_(head)
        return plain


def _without_table(core: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in core.state_dict().items() if not name.startswith("embed_tokens")}


def _scaled(book: np.ndarray, size: int) -> np.ndarray:
    """The centroids of a level, scaled to a root mean square length of 1, so that all levels have the same scale.

    Codes without a centroid, because there were too few items, are zero.
    """
    length = np.sqrt((book**2).sum(axis=1).mean()).clip(1e-6)
    return np.pad(book / length, ((0, size - len(book)), (0, 0)))


def _main_axes(centroids: np.ndarray, width: int) -> Tensor:
    """The first `width` principal axes [width, D] of the centroids; missing axes are zero."""
    _, _, axes = np.linalg.svd(centroids, full_matrices=False)
    return torch.from_numpy(np.pad(axes[:width], ((0, max(0, width - len(axes))), (0, 0))))
