"""The films, and the model that was trained to name them (examples/films says how)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hedgerow as hr
from hedgerow.errors import BackendError

DATA = Path(__file__).parent / "data"
BEGIN = "<|sid_begin|>"
LEVELS = "abcd"


def load_catalog() -> hr.Catalog:
    """Returns the 17,472 films: SIDs of 4 levels x 256 codes, titles, years, genres, directors and more."""
    return hr.Catalog.from_parquet(DATA / "films.parquet", sid="sid", item_id="item_id", codebook_sizes=256)


class FilmModel:
    """A Qwen3-architecture language model of a few million parameters, with OneRec's token layout."""

    def __init__(self) -> None:
        """Loads the shipped half precision weights, to be run in float32.

        Raises:
            BackendError: the packages of the demo extra are not installed.
        """
        try:
            import torch
            from tokenizers import Tokenizer
            from transformers import Qwen3ForCausalLM
            from transformers.utils import logging
        except ModuleNotFoundError as error:
            raise BackendError(
                f"the demo needs the package {error.name!r}; install it with: pip install 'hedgerow[demo]'"
            ) from error
        logging.disable_progress_bar()
        self.tokenizer = Tokenizer.from_file(str(DATA / "tokenizer.json"))
        self.model = Qwen3ForCausalLM.from_pretrained(DATA, dtype=torch.float32).eval()
        # The tokens of a level are neighbours, so the first one's id places them all.
        self.first_tokens = torch.tensor([self.tokenizer.token_to_id(f"<s_{level}_0>") for level in LEVELS])

    @property
    def num_parameters(self) -> int:
        """The number of trained weights."""
        return self.model.num_parameters()

    def encode(self, prompt: str) -> list[int]:
        """Returns the token ids of a prompt, up to where the first code belongs."""
        return self.tokenizer.encode(prompt + BEGIN).ids

    def logits_fn(self, prompts: Any) -> Callable[[hr.Beams], Any]:
        """Returns the function that `beam_search` wants, for prompts [B, P]: token ids, all of one length."""
        return lambda beams: self.logits(prompts, beams.codes)

    def logits(self, prompts: Any, codes: Any) -> Any:
        """Returns float32 logits [B, m, 256] of the next code.

        Args:
            prompts: [B, P] token ids of B prompts of one length.
            codes: [B, m, level] the codes so far of m beams a prompt; -1 in a dead beam, whose logits mean nothing.
        """
        import torch

        batch, beams, level = codes.shape
        answers = codes.clamp(min=0) + self.first_tokens[:level]
        asked = prompts[:, None].expand(batch, beams, -1)
        ids = torch.cat([asked, answers], dim=-1).flatten(0, 1)
        first = int(self.first_tokens[level])
        with torch.inference_mode():
            hidden = self.model.model(input_ids=ids, use_cache=False).last_hidden_state[:, -1]
            return (hidden @ self.model.lm_head.weight[first : first + 256].T).unflatten(0, (batch, beams))


def free_search(logits_of: Callable[[Any], Any], *, batch_size: int, beam_width: int) -> tuple[Any, Any]:
    """Searches as `hr.beam_search` does, but without a catalog: any code may follow any other.

    Args:
        logits_of: codes [B, m, level] -> logits [B, m, C].
        batch_size: B.
        beam_width: M, at most C.

    Returns:
        SIDs [B, M, 4] and their scores [B, M], best first.
    """
    import torch

    codes, scores = torch.zeros(batch_size, 1, 0, dtype=torch.int64), torch.zeros(batch_size, 1)
    for _ in LEVELS:
        totals = scores[..., None] + logits_of(codes).log_softmax(dim=-1)
        size = totals.shape[-1]
        scores, best = totals.flatten(1).topk(min(beam_width, totals.shape[1] * size))
        history = codes.gather(1, (best // size)[..., None].expand(-1, -1, codes.shape[-1]))
        codes = torch.cat([history, (best % size)[..., None]], dim=-1)
    return codes, scores
