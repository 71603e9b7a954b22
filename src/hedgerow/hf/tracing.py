"""Tracing: the beams of one search after every level, and the probability that the catalog and the rules remove."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hedgerow.constraints.requests import BatchRules
from hedgerow.decode.beams import Beams
from hedgerow.decode.masked_probability import masked_probability
from hedgerow.decode.paths import with_code_scores
from hedgerow.decode.prepare import prepared
from hedgerow.decode.search import init_beams
from hedgerow.decode.step import step
from hedgerow.hf.faults import Outcome, retried
from hedgerow.hf.prompts import Ids
from hedgerow.hf.search import ModelSearch


@dataclass(frozen=True)
class Trace:
    """One search.

    Attributes:
        history: the beams [1, M] after every level.
        masked: for each level the share of the probability of its beams that goes to codes that match no item, or no
            item that the rules allow. The beams count by their probability.
        by_rules: for each level the part of `masked` that the rules alone remove.
    """

    history: list[Beams]
    masked: list[float]
    by_rules: list[float]


@torch.inference_mode()
def traced(search: ModelSearch, prompt: Ids, rules: BatchRules, beam_width: int) -> Trace:
    """Run the search of one prompt.

    Args:
        search: the model, the index and the options.
        prompt: token ids.
        rules: the rules of the prompt, a batch of one.
        beam_width: M.

    Raises:
        ArgumentError: logits are NaN or infinite.
    """
    device_index, constraints = search.device_index, prepared(search.device_index, rules)

    def attempt(search: ModelSearch) -> Outcome[Trace]:
        decoder, written = search.decoder([prompt], beam_width), search.written([prompt])
        beams, history, invalid, masked, by_rules = init_beams(device_index, 1), [], [], [], []
        for _ in range(search.index.num_levels):
            scores = search.scores_of(decoder(beams), beams, written)
            invalid.append(search.invalid(scores.peak, beams))
            # With log-probabilities over the vocabulary, other tokens have a part of the probability as well.
            by_catalog = masked_probability(device_index, beams, scores.values, normalize=scores.normalize)
            by_both = by_catalog
            if constraints is not None:
                by_both = masked_probability(
                    device_index, beams, scores.values, normalize=scores.normalize, constraints=constraints
                )
            weights = beams.scores.double().softmax(-1)
            masked.append(float((by_both.double() * weights).sum()))
            by_rules.append(float(((by_both - by_catalog).double() * weights).sum()))
            options = {"beam_width": beam_width, "normalize": scores.normalize, "kernel": search.kernel}
            beams = step(device_index, beams, scores.values, constraints=constraints, **options)
            history.append(beams)
        beams = with_code_scores(device_index._ops, history)
        history[-1], of_end = search.finish(decoder, beams, written)
        return Trace(history, masked, by_rules), torch.stack([*invalid, *of_end], dim=-1), decoder.deviation

    return retried(search, attempt, [0])
