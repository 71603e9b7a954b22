"""The trained network: a Qwen3 that reads and generates the tokens of codes, exported as a plain `Qwen3ForCausalLM`.

The input and output embeddings of a code are the sum of learned numbers and of projections of the code's content, for
example the centroid of the quantizer. Codes that are rare in the histories are then close to those with similar
content. `exported` writes the sums into the tables of the plain model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen3Config, Qwen3ForCausalLM

from hedgerow.training.loss import SidLoss, loss_of_levels

INITIAL = 0.02


class CodeNetwork(nn.Module):
    """A Qwen3 over the tokens of codes.

    Args:
        config: the configuration of the plain model.
        tables: per level the token of each code, int64 [C]; -1 for a code without a token.
        content: per level the content of each code, float32 [C, D], or None if there is none.
        dropout: the probability with which numbers of embeddings and of the last hidden states are dropped.
        allowed: the loss among the codes that may follow. None: among all codes of a level.
    """

    def __init__(
        self,
        config: Qwen3Config,
        tables: Sequence[np.ndarray],
        content: Sequence[np.ndarray | None],
        dropout: float,
        allowed: SidLoss | None = None,
    ) -> None:
        super().__init__()
        self.allowed = allowed
        self.config, self.dropout, width = config, dropout, config.hidden_size
        # For short sequences on a CPU, eager attention is faster than fused attention.
        small = Qwen3Config.from_dict(config.to_dict() | {"vocab_size": 1})
        small._attn_implementation = "eager" if not torch.cuda.is_available() else "sdpa"
        self.core = Qwen3ForCausalLM(small).model
        self.learned_in = nn.Parameter(torch.randn(config.vocab_size, width) * INITIAL)
        self.learned_out = nn.Parameter(torch.randn(config.vocab_size, width) * INITIAL)
        pairs = zip(content, tables, strict=True)
        self.levels = [CodeContent(found, table, width) for found, table in pairs]
        self.contents = nn.ModuleList(self.levels)

    def inputs(self) -> Tensor:
        """The input embedding of each token, [V, width]."""
        return self._with_content(self.learned_in, "read")

    def outputs(self) -> Tensor:
        """The output embedding of each token, [V, width]."""
        return self._with_content(self.learned_out, "write")

    def _with_content(self, table: Tensor, kind: str) -> Tensor:
        for level in self.levels:
            if level.content is not None:
                table = table.index_add(0, level.tokens, getattr(level, kind)(level.content).to(table.dtype))
        return table

    def forward(self, input_ids: Tensor, attention_mask: Tensor, levels: Tensor, codes: Tensor) -> dict[str, Any]:
        """The loss: the mean of each level, summed over the levels."""
        embedded = functional.embedding(input_ids, self.inputs())
        embedded = functional.dropout(embedded, self.dropout, self.training)
        hidden = self.core(inputs_embeds=embedded, attention_mask=attention_mask, use_cache=False).last_hidden_state
        hidden = functional.dropout(hidden, self.dropout, self.training)
        outputs = self.outputs()

        def logits_of(positions: Tensor, level: int) -> Tensor:
            return hidden[positions] @ outputs[self.levels[level].tokens].T

        return {"loss": loss_of_levels(logits_of, codes, levels, len(self.levels), self.allowed)}

    def searched(self) -> Qwen3ForCausalLM:
        """The plain model for a validation, on the device of this network."""
        model: Any = self.exported()
        return model.to(self.learned_in.device)

    @torch.no_grad()
    def exported(self) -> Qwen3ForCausalLM:
        """The same model as a plain `Qwen3ForCausalLM`, on the CPU in float32."""
        plain = Qwen3ForCausalLM(self.config).eval()
        core = {name: value for name, value in self.core.state_dict().items() if not name.startswith("embed_tokens")}
        plain.model.load_state_dict({"embed_tokens.weight": self.inputs()} | core)
        plain.lm_head.weight.copy_(self.outputs())
        return plain


class CodeContent(nn.Module):
    """The projections of the content of the codes of a level."""

    tokens: Tensor
    content: Tensor | None

    def __init__(self, content: np.ndarray | None, table: np.ndarray, width: int) -> None:
        super().__init__()
        self.register_buffer("tokens", torch.tensor(table), persistent=False)
        self.register_buffer("content", None, persistent=False)
        if content is None:
            return
        self.content = torch.from_numpy(scaled(content))
        # Projections start from the main axes, so that similar content is similar from the first step.
        axes = _main_axes(self.content.numpy(), width)
        self.read, self.write = (nn.Linear(content.shape[1], width, bias=False) for _ in range(2))
        with torch.no_grad():
            self.read.weight.copy_(axes)
            self.write.weight.copy_(axes * 0.5)


def scaled(content: np.ndarray) -> np.ndarray:
    """Content scaled to a root mean square length of 1, so that all levels have the same scale."""
    length = np.sqrt((content**2).sum(axis=1).mean()).clip(1e-6)
    return (content / length).astype(np.float32)


def _main_axes(content: np.ndarray, width: int) -> Tensor:
    """The first `width` principal axes [width, D] of content; missing axes are zero."""
    _, _, axes = np.linalg.svd(content, full_matrices=False)
    return torch.from_numpy(np.pad(axes[:width], ((0, max(0, width - len(axes))), (0, 0))))


class BaseNetwork(nn.Module):
    """A causal language model whose tokenizer has got the tokens of codes.

    With adapters, the embeddings of the new tokens are trained as well. The tables of embeddings are trained as a
    whole, and without decay: words that no history has keep theirs.

    Args:
        model: the model, with resized embeddings; or the model of peft around it.
        tables: as for `CodeNetwork`.
        allowed: as for `CodeNetwork`.
    """

    # Read by the Trainer where a checkpoint has no weights that are not trained.
    _keys_to_ignore_on_save: None = None

    def __init__(self, model: Any, tables: Sequence[np.ndarray], allowed: SidLoss | None = None) -> None:
        super().__init__()
        self.model, self.count, self.allowed = model, len(tables), allowed
        for level, table in enumerate(tables):
            self.register_buffer(f"tokens_{level}", torch.tensor(table), persistent=False)
        embeddings = [model.get_input_embeddings(), model.get_output_embeddings()]
        weights = [layer.weight for layer in embeddings if layer is not None]
        for weight in weights:
            weight.requires_grad_(True)
        self.kept_embeddings = frozenset(
            name for name, value in self.named_parameters() if any(value is weight for weight in weights)
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor, levels: Tensor, codes: Tensor) -> dict[str, Any]:
        """The loss: as for `CodeNetwork`."""
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits

        def logits_of(positions: Tensor, level: int) -> Tensor:
            return logits[positions][:, getattr(self, f"tokens_{level}")]

        return {"loss": loss_of_levels(logits_of, codes, levels, self.count, self.allowed)}

    def searched(self) -> Any:
        """The model for a validation."""
        return self.model

    def exported(self) -> Any:
        """The plain model, with merged adapters. This network cannot be trained any more."""
        merged = self.model.merge_and_unload() if hasattr(self.model, "merge_and_unload") else self.model
        return merged.eval().cpu()
