"""generate(): the search of a Retriever as the decoding loop of `generate()` of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria
from transformers.generation.utils import GenerateBeamDecoderOnlyOutput, GenerateBeamEncoderDecoderOutput

from hedgerow.constraints.requests import Exclusions, Sets
from hedgerow.errors import ArgumentError
from hedgerow.hf.prompts import Ids
from hedgerow.hf.retriever import Retriever
from hedgerow.hf.searcher import Searcher
from hedgerow.hf.tasks import Task, batches_of
from hedgerow.picking import Picking

# What generate() prepares for the model itself.
PREPARED = {"attention_mask", "position_ids", "past_key_values", "use_cache", "logits_to_keep", "encoder_outputs"}
PREPARED |= {"cache_position", "mm_encoder_outputs"}
# Options of generate() that this search cannot obey.
REFUSED = ("do_sample", "output_scores", "output_logits", "output_attentions", "output_hidden_states")
Written = list[tuple[Ids, float]]


def generate(
    model: Any,
    input_ids: Tensor,
    *,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    inputs_tensor: Tensor,
    retriever: Retriever | None = None,
    constraints: Sets = None,
    exclude: Exclusions = None,
    **model_kwargs: Any,
) -> Any:
    """Search with a `Retriever` where `generate()` would search: `model.generate(..., custom_generate=generate)`.

    A drop-in for beam search with `CatalogLogitsProcessor`: the same inputs and outputs, at the speed of the Retriever.
    `num_beams` is its beam width, and `length_penalty` replaces its own (another one than that of the retriever runs
    without its CUDA graphs). With `normalize="vocab"`, the scores are those of `generate()`. Other options that would
    change scores are refused.

    transformers passes all arguments but these three, which are arguments of `model.generate`:

    Args:
        model: the model.
        input_ids: [R, T], the prompts, one row per beam.
        logits_processor: must be empty.
        stopping_criteria: must only contain the ends that `generate()` adds itself.
        generation_config: the options of `generate()`.
        inputs_tensor: [B, T], the prompts.
        retriever: a Retriever of this model.
        constraints: as for `Retriever.retrieve`.
        exclude: as for `Retriever.retrieve`.
        model_kwargs: what `generate()` has prepared for the model, of which the mask of the padding is used, and what
            the encoder gave, if the model has one.

    Returns:
        Token ids [B * num_return_sequences, T + new tokens], best first, or with `return_dict_in_generate=True` an
        output with them as `sequences`, and `sequences_scores`. A SID is followed by the end delimiter. If a request
        has fewer SIDs, its last rows have padding alone after the prompt, and scores of -inf. `hr.results_of` maps
        them to items.

    Raises:
        ArgumentError: there is no retriever, it is of another model, or an option cannot be obeyed.
        ConstraintError: the constraints or exclusions do not fit the prompts or the index.

    Examples:
        ```python
        import torch
        import hedgerow as hr
        from hedgerow.hf import Retriever, generate
        from transformers import Qwen3Config, Qwen3ForCausalLM

        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
        model = Qwen3ForCausalLM(Qwen3Config(vocab_size=32, num_hidden_layers=2, head_dim=16, **sizes))
        index = hr.build_index(hr.Catalog([[0, 1], [2, 0], [2, 2]], codebook_sizes=4))
        tokens = hr.TokenMap.from_offsets([10, 14], codebook_sizes=4)
        retriever = Retriever(model, index, tokens, normalize="vocab")

        options = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 2, "eos_token_id": None}
        written = model.generate(torch.tensor([[1, 2, 3]]), custom_generate=generate, retriever=retriever, **options)
        assert written.shape == (2, 5) and index.contains(tokens.decode(written[:, 3:])).all()
        ```
    """
    searcher = _searcher(model, retriever, generation_config)
    _check_options(generation_config, logits_processor, stopping_criteria)
    _check_inputs(model, input_ids, model_kwargs)
    count = generation_config.num_return_sequences
    rows_per_prompt = max(generation_config.num_beams, count)
    mask = model_kwargs.get("attention_mask")
    kept = _kept(inputs_tensor, None if mask is None else mask[::rows_per_prompt])
    prompts = [row[keep].tolist() for row, keep in zip(inputs_tensor.cpu(), kept.cpu(), strict=True)]
    states = _states(model_kwargs.get("encoder_outputs"), kept, rows_per_prompt)
    written = _search(searcher, prompts, states, generation_config.num_beams, retriever, constraints, exclude)
    start = input_ids[::rows_per_prompt].repeat_interleave(count, dim=0)
    rows = [row for found in written for row in [*found[:count], *[([], -float("inf"))] * (count - len(found))]]
    longest = max(len(ids) for ids, _ in rows)
    if start.shape[1] + longest > generation_config.max_length:
        raise ArgumentError(
            f"max_length={generation_config.max_length} is shorter than a prompt of {start.shape[1]} tokens and a SID "
            f"of {longest}. Pass max_new_tokens={longest}."
        )
    padding = _padding(generation_config, rows, longest)
    new = torch.tensor([[*ids, *[padding] * (longest - len(ids))] for ids, _ in rows], dtype=start.dtype)
    sequences = torch.cat([start, new.to(start.device)], dim=1)
    if not generation_config.return_dict_in_generate:
        return sequences
    output = GenerateBeamEncoderDecoderOutput if model.config.is_encoder_decoder else GenerateBeamDecoderOnlyOutput
    scores = torch.tensor([score for _, score in rows], device=start.device)
    return output(sequences=sequences, sequences_scores=scores)  # pyright: ignore


def _searcher(model: Any, retriever: Retriever | None, config: Any) -> Searcher:
    """The searcher of the retriever, with the length penalty of `generate()`."""
    if not isinstance(retriever, Retriever):
        raise ArgumentError(
            "pass the retriever of this model: model.generate(..., custom_generate=generate, retriever=retriever); got "
            f"{type(retriever).__name__}."
        )
    if retriever.model is not model:
        raise ArgumentError("the retriever is of another model. Create it with this one: Retriever(model, ...).")
    searcher = retriever._searcher
    if searcher.search.length_penalty == config.length_penalty:
        return searcher
    search = replace(searcher.search, length_penalty=float(config.length_penalty))
    # Captured searches have the length penalty of the retriever.
    return replace(searcher, search=search, graphs=None)


def _check_options(config: Any, logits_processor: Any, stopping_criteria: Any) -> None:
    refused = [name for name in REFUSED if getattr(config, name, None)]
    refused += [type(processor).__name__ for processor in logits_processor]
    ends = (MaxLengthCriteria, EosTokenCriteria)
    refused += [type(criterion).__name__ for criterion in stopping_criteria if not isinstance(criterion, ends)]
    if refused:
        raise ArgumentError(
            f"a search with a Retriever cannot obey {', '.join(refused)}. Remove them, from model.generation_config as "
            "well, or use CatalogLogitsProcessor in place of custom_generate."
        )


def _check_inputs(model: Any, input_ids: Tensor, model_kwargs: dict[str, Any]) -> None:
    """Check that the prompts are the only inputs that the caller has given."""
    given = [name for name, value in model_kwargs.items() if name not in PREPARED and value is not None]
    cache = model_kwargs.get("past_key_values")
    if cache is not None and cache.get_seq_length():
        given.append("past_key_values")
    if model.config.is_encoder_decoder and input_ids.shape[1] > 1:
        given.append("decoder_input_ids")
    if given:
        raise ArgumentError(f"a search with a Retriever reads prompts of token ids alone; got {', '.join(given)}.")


def _kept(ids: Tensor, mask: Tensor | None) -> Tensor:
    """bool [B, T]: which tokens are no padding."""
    if ids.ndim != 2 or ids.is_floating_point():
        raise ArgumentError(f"prompts must be token ids [B, T]; got {ids.dtype} {list(ids.shape)}.")
    return torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()


def _states(encoded: Any, kept: Tensor, rows_per_prompt: int) -> list[Tensor] | None:
    """What the encoder gave for each prompt [T, D], without padding; None if it has to run again."""
    if encoded is None:
        return None
    states = encoded[0][::rows_per_prompt]
    if states.shape[:2] != kept.shape:
        return None
    return [row[keep.to(row.device)] for row, keep in zip(states, kept, strict=True)]


def _search(
    searcher: Searcher,
    prompts: list[Ids],
    states: list[Tensor] | None,
    num_beams: int,
    retriever: Any,
    constraints: Sets,
    exclude: Exclusions,
) -> list[Written]:
    """The tokens after each prompt, and the score, of each SID that is found, best first."""
    width, rules, begun = searcher.width(num_beams), searcher.rules(len(prompts), constraints, exclude), []
    encoded = searcher.encode(prompts)
    tasks = [Task(ids, rules.take([row]), Picking(None, None, None), width) for row, ids in enumerate(encoded)]
    model, written = searcher.search.model, [[]] * len(prompts)
    for prompt, ids in zip(prompts, encoded, strict=True):
        begun.append(model.tokens.begin if model.is_encoder_decoder else ids[len(prompt) :])
    for rows in batches_of(searcher.search, tasks, retriever.max_tokens):
        of_rows = None if states is None else [states[row] for row in rows]
        beams = searcher.beams([encoded[row] for row in rows], width, rules.take(rows), rows, states=of_rows)[-1]
        for row, codes, scores in zip(rows, beams.codes.tolist(), beams.scores.tolist(), strict=True):
            live = [(sid, score) for sid, score in zip(codes, scores, strict=True) if score > -float("inf")]
            written[row] = [([*begun[row], *_tokens(searcher, sid)], score) for sid, score in live]
    return written


def _tokens(searcher: Searcher, sid: Sequence[int]) -> Ids:
    """The tokens of a SID and of its end."""
    index, tokens = searcher.index, searcher.search.model.tokens
    ids = [int(table[code]) for table, code in zip(tokens.token_ids, sid, strict=True)]
    for level, end in enumerate(index.end_codes):
        if end is not None and sid[level] == end:
            return ids[: level + 1]
    return [*ids, *tokens.end]


def _padding(config: Any, rows: Written, longest: int) -> int:
    """The token that fills up shorter rows."""
    if all(len(ids) == longest for ids, _ in rows):
        return 0
    if config.pad_token_id is None:
        raise ArgumentError("SIDs of several lengths, or fewer SIDs than rows, need padding: pass pad_token_id.")
    return config.pad_token_id
