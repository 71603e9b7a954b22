"""The films, and the model that was trained to name them (examples/films says how)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import hedgerow as hr

if TYPE_CHECKING:
    from hedgerow.hf import Retriever

DATA = Path(__file__).parent / "data"


def load_catalog() -> hr.Catalog:
    """Returns the 17,472 films: SIDs of 4 levels x 256 codes, titles, years, genres, directors and more."""
    return hr.Catalog.from_parquet(DATA / "films.parquet", sid="sid", item_id="item_id", codebook_sizes=256)


def load_retriever(index: hr.TrieIndex) -> Retriever:
    """Returns a retriever of films: a Qwen3-architecture model of a few million parameters, with OneRec's token layout.

    Raises:
        BackendError: the packages of the demo extra are not installed.
    """
    from hedgerow.hf.loading import load_retriever

    # For a few small searches, loading a kernel takes longer than it saves.
    return load_retriever(DATA, index, backend="array")


def free_search(retriever: Retriever, prompts: Any, *, beam_width: int) -> tuple[Any, Any]:
    """Searches as `retriever` does, but without a catalog: any code may follow any other.

    Returns:
        SIDs [B, M, L] and their scores [B, M], best first.
    """
    import torch

    ids = retriever.encode(prompts)
    decoder = retriever.decoder(ids, beam_width)
    beams = hr.start(retriever.device_index, len(ids))
    with torch.inference_mode():
        for level in range(retriever.tokens.num_levels):
            log_probs = retriever.model.code_logits(decoder(beams), level).log_softmax(-1)
            beams = _best(beams, log_probs, beam_width)
    return beams.codes, beams.scores


def _best(beams: hr.Beams, log_probs: Any, beam_width: int) -> hr.Beams:
    """Returns the best `beam_width` of all continuations; where there are fewer, the last of them score -inf."""
    import torch

    totals, size = beams.scores[..., None] + log_probs, log_probs.shape[-1]
    flat = torch.nn.functional.pad(totals.flatten(1), (0, max(0, beam_width - totals[0].numel())), value=float("-inf"))
    scores, at = flat.topk(beam_width)
    at = torch.where(scores > float("-inf"), at, 0)
    parents, codes = (at // size).int(), (at % size).int()
    history = beams.codes.gather(1, parents.long()[..., None].expand(-1, -1, beams.level))
    return hr.Beams(torch.cat([history, codes[..., None]], dim=-1), scores, torch.zeros_like(parents), parents)
