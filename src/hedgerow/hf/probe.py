"""Trial runs of a model on a few random tokens, which find out how to run it."""

from __future__ import annotations

import copy
import warnings
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from hedgerow.errors import ArgumentError
from hedgerow.hf.compiled import CompiledLayers, check_compiler
from hedgerow.hf.crossed import cross_attentions
from hedgerow.hf.encoded import EncodedDecoder, decoder_start
from hedgerow.hf.layers import check_loaded, state_key
from hedgerow.hf.masking import Masking
from hedgerow.hf.model import (
    HEAD_TOLERANCE,
    LOOSE,
    CodeModel,
    HeadUse,
    ModelChangedError,
    Probed,
    changed_input,
    relative_difference,
)
from hedgerow.hf.plain import PlainDecoder
from hedgerow.hf.tree import TreeDecoder
from hedgerow.hf.trials import (
    PROMPTS,
    WIDTH,
    other_padding,
    random_ids,
    random_searches,
    tolerance_of,
    unchanged,
)

Decoding = Literal["auto", "tree", "plain"]
DECODING = ("auto", "tree", "plain")
# The largest change by another beam, as a share of the tolerance. The mask hides that beam, so only the order of sums
# can change.
LEAK = 0.02
# The trial of the head makes its logits so much larger that a cap on them shows, however small they are.
LOUDER = 64
# The trial covers a window up to this length. For a longer one, it relies on the configuration.
MAX_WINDOW = 256
FAILURES = (
    RuntimeError,
    TypeError,
    ValueError,
    AttributeError,
    LookupError,
    AssertionError,
    ModelChangedError,
)


def probe(model: CodeModel, decoding: Decoding) -> None:
    """Try a model and set `probed`, unless it was tried in its present state.

    Raises:
        ArgumentError: the model cannot run on token ids, or has no token for a code; or `decoding` is "tree", and the
            model does not support it.
    """
    key = (*state_key(model.model), model.trusts_rows)
    if model.probed is not None and model.probed.key == key:
        return
    check_loaded(model.model)
    model.check_vocabulary(model.vocabulary_size)
    # Another thread may use the model during the trial. It also finds what compiled layers have to give.
    trial = copy.copy(model)
    trial.compiled = None
    with torch.no_grad():
        ids, own = _own_logits(trial)
        model.check_vocabulary(own.shape[-1])
        trial.probed = Probed(key, "all", own.shape[1] - ids.shape[1])
        trial.probed = replace(trial.probed, head=find_head_use(trial, ids, own[:, -1]))
        if trial.is_encoder_decoder:
            _check_encoder(trial)
        found, reason = _choose_decoder(trial, decoding)
    if model.compiled is not None:
        _check_compiled(trial, found, model.compiled, reason)
    if reason:
        # Level 3 is the caller of Retriever().
        warnings.warn(reason, stacklevel=3)
    model.probed = found


def _own_logits(model: CodeModel) -> tuple[Tensor, Tensor]:
    """Token ids [1, T] and the logits [1, T, V] that the user's call of the model gives for them.

    Raises:
        ArgumentError: the model cannot run.
    """
    ids = random_ids(model, (1, PROMPTS[-1]))
    inputs = {"input_ids": ids, "decoder_input_ids": ids} if model.is_encoder_decoder else {"input_ids": ids}
    name = type(model.model).__name__
    try:
        logits = model.logits_of(**inputs)
    except ArgumentError:
        raise
    except Exception as error:
        # A model is a program, which can raise any exception.
        raise ArgumentError(
            f"{name} cannot run on a few token ids: {type(error).__name__}: {str(error).rstrip('.')}. "
            "Retriever needs a model for which model(input_ids).logits works."
        ) from error
    if logits.is_meta:
        raise ArgumentError(f"{name} gives logits without values, on the device 'meta': load its weights first.")
    if logits.shape[1] < ids.shape[1]:
        raise ArgumentError(
            f"{name} gives logits for {logits.shape[1]} of {ids.shape[1]} tokens; Retriever needs one row per token."
        )
    _check_generates_from_ids(model, ids, logits)
    return ids, logits


def _check_generates_from_ids(model: CodeModel, ids: Tensor, own: Tensor) -> None:
    """Check that `generate` gets the logits of the token ids, too.

    Raises:
        ArgumentError: the model prepares other inputs for it, as XLNet does, and they have other logits.
    """
    try:
        prepared = model.model.prepare_inputs_for_generation(ids)
        changed = set(prepared) - {"input_ids", "decoder_input_ids", "attention_mask", "position_ids", "use_cache"}
        given = {name for name in changed if prepared[name] is not None}
        # Prompt tuning prepares embeddings for another call of the model than the user's.
        if not given or "inputs_embeds" in given or model.is_encoder_decoder:
            return
        logits = model.logits_of(**prepared)[:, -1]
    except Exception:
        # Models without generate(), and those that need more to prepare their inputs.
        return
    if logits.shape == own[:, -1].shape and relative_difference(logits, own[:, -1]) > tolerance_of(model):
        name = type(model.model).__name__
        raise ArgumentError(
            f"generate() runs {name} on more than token ids ({', '.join(sorted(given))}), which Retriever does not. "
            "Use hedgerow.hf.CatalogLogitsProcessor with generate()."
        )


def find_head_use(model: CodeModel, ids: Tensor, own: Tensor) -> HeadUse:
    """Find what a search can take from a model: see `CodeModel`.

    Args:
        model: the language model.
        ids: [1, T] int64, token ids.
        own: [1, V], the logits after them, as the model gives them.
    """
    assert model.probed is not None
    candidates: tuple[HeadUse, ...] = ("rows", "last") if model.has_plain_head() else ("last",)
    for use in candidates:
        trial = copy.copy(model)
        trial.probed = replace(model.probed, head=use)
        try:
            if _gives(trial, ids, own):
                return use
        except FAILURES:
            continue
    return "all"


def _gives(model: CodeModel, ids: Tensor, own: Tensor) -> bool:
    """Whether features of the model give its own logits, also after a head that gets a larger input."""
    last, rest = torch.full((1,), ids.shape[1] - 1, device=ids.device), _rest(model, ids)
    tolerance = HEAD_TOLERANCE.get(own.dtype, LOOSE)
    features = model.features(ids, last=last, **rest)
    if not relative_difference(model.logits(features[:, 0]), own.float().to(ids.device)) <= tolerance:
        return False
    if model.head_use != "rows":
        return True
    assert model.probed is not None
    whole = copy.copy(model)
    whole.probed = replace(model.probed, head="last")
    with changed_input(model.head, lambda states: states * LOUDER):
        louder = _all_logits(whole, whole.features(ids, last=last, **rest))
    return bool(relative_difference(_all_logits(model, features * LOUDER), louder) <= tolerance)


def _rest(model: CodeModel, ids: Tensor) -> dict[str, Any]:
    return {"input_ids": ids, "use_cache": False} if model.is_encoder_decoder else {"use_cache": False}


def _all_logits(model: CodeModel, features: Tensor) -> Tensor:
    levels = (model.code_logits(features, level) for level in range(model.tokens.num_levels))
    return torch.cat([model.logits(features), *levels], dim=-1)


def _choose_decoder(model: CodeModel, decoding: Decoding) -> tuple[Probed, str]:
    """Choose how beams are computed, and give the reason if "auto" chose "plain".

    Raises:
        ArgumentError: `decoding` is "tree", and the model does not support it.
    """
    assert model.probed is not None
    name = type(model.model).__name__
    try:
        if decoding == "tree" and model.is_encoder_decoder:
            raise ArgumentError("the beams of an encoder-decoder model are no tree.")
        if decoding == "plain":
            return _without_tree(model), ""
        if model.is_encoder_decoder:
            return replace(model.probed, cached=True, crossed=_crossed(model)), ""
        return replace(model.probed, masking=find_masking(model)), ""
    except ArgumentError as error:
        if decoding == "tree":
            raise ArgumentError(f"{name} does not support decoding='tree': {error} Use decoding='plain'.") from None
        found = _without_tree(model)
        alone = " Its logits also depend on the batch, so each sequence is computed alone." if found.alone else ""
        return found, f"{name} is searched with decoding='plain', which is slow: {error}{alone}"


def _check_encoder(model: CodeModel) -> None:
    """Check that the decoder of a model needs the states of its encoder, and nothing else of a prompt.

    Raises:
        ArgumentError: it does not run, or has other logits, for example with virtual tokens before the prompt.
    """
    ids, name = random_ids(model, (1, PROMPTS[-1])), type(model.model).__name__
    written = torch.tensor([[decoder_start(model.model), *model.tokens.begin]], device=ids.device)
    own = model.logits_of(input_ids=ids, decoder_input_ids=written, use_cache=False)[:, -1].float()
    try:
        features = EncodedDecoder(model, ids.tolist(), has_cache=False)(random_searches(model, 1)[0])
        difference = float(relative_difference(model.logits(features[:, 0]), own.to(ids.device)))
    except FAILURES as error:
        raise ArgumentError(
            f"{name} does not run on the states of its encoder alone: {type(error).__name__}: "
            f"{str(error).rstrip('.')}. Use hedgerow.hf.CatalogLogitsProcessor with generate()."
        ) from None
    if difference > tolerance_of(model):
        raise ArgumentError(
            f"{name} has other logits on the states of its encoder alone: they differ by {difference:.1e} of the "
            "largest. Use hedgerow.hf.CatalogLogitsProcessor with generate()."
        )


def _without_tree(model: CodeModel) -> Probed:
    """How to compute whole sequences: in batches, if a batch gives the same logits as each sequence alone."""
    assert model.probed is not None
    if model.is_encoder_decoder:
        return model.probed
    ids, rest = random_ids(model, (4, PROMPTS[-1])), {"use_cache": False}
    last = torch.full((len(ids),), ids.shape[1] - 1, device=ids.device)
    together = model.features(ids, last=last, **rest)
    each = torch.cat([model.features(row, last=last[:1], **rest) for row in ids.split(1)])
    return replace(model.probed, alone=bool(relative_difference(together, each) > tolerance_of(model)))


def find_masking(model: CodeModel) -> Masking:
    """Find the form in which the model takes the masks of a tree of beams.

    Raises:
        ArgumentError: the model does not take such masks, or its logits differ from those of the plain sequences. The
            message is a predicate about "it", the model.
    """
    _check_takes_positions(model)
    masking = Masking.of(model.config)
    extra = masking.window if masking.window <= MAX_WINDOW else 0
    lengths = [length + extra for length in PROMPTS]
    prompts = random_ids(model, (len(lengths), max(lengths)))
    prompt_lengths = torch.tensor(lengths, device=model.device)
    plain = PlainDecoder(model, [row[:length].tolist() for row, length in zip(prompts, lengths, strict=True)])
    try:
        tree, other = (
            TreeDecoder(model, masking, ids, prompt_lengths, WIDTH)
            for ids in (prompts, other_padding(prompts, prompt_lengths))
        )
        searches = zip(random_searches(model, len(lengths)), random_searches(model, len(lengths), shift=1), strict=True)
        for beams, shifted in searches:
            features = tree(beams)
            difference = float(relative_difference(features, plain(beams)))
            leak = float(relative_difference(unchanged(other(shifted)), unchanged(features)))
            _check_is_number(difference)
            if difference > tolerance_of(model) or leak > tolerance_of(model) * LEAK:
                raise ArgumentError(
                    f"its logits in a tree of beams differ from the plain ones by {difference:.1e} of the largest, and "
                    f"by {leak:.1e} when another beam changes."
                )
    except FAILURES as error:
        if isinstance(error, ArgumentError):
            raise
        message = f"it cannot run with 4-D masks and position ids: {type(error).__name__}: {error}".rstrip(".")
        raise ArgumentError(f"{message}.") from None
    return masking


@torch.inference_mode()
def _check_compiled(model: CodeModel, found: Probed, compiled: CompiledLayers, reason: str) -> None:
    """Check that compiled layers give the model's own features in a tree of beams.

    Raises:
        ArgumentError: they do not, or cannot be compiled; or the model is not searched with a tree.
    """
    name = type(model.model).__name__
    if found.masking is None:
        reason = reason or "decoding='plain' was given" if not model.is_encoder_decoder else "it has an encoder"
        raise ArgumentError(f"compile=True needs a model that is searched with decoding='tree'; {reason}.")
    check_compiler(model.device)
    prompts, lengths = random_ids(model, (2, PROMPTS[-1])), torch.tensor(PROMPTS, device=model.device)
    trial = copy.copy(model)
    trial.probed = found
    own = TreeDecoder(trial, found.masking, prompts, lengths, WIDTH)
    trial = copy.copy(trial)
    trial.compiled = compiled
    decoder = TreeDecoder(trial, found.masking, prompts, lengths, WIDTH)
    for beams in random_searches(model, len(lengths))[:2]:
        difference = float(relative_difference(decoder(beams), own(beams)))
        if not difference <= tolerance_of(model):
            raise ArgumentError(
                f"compile=True does not support {name}: its logits differ by {difference:.1e} of the largest when its "
                "layers are compiled. Leave compile off."
            )


def _check_takes_positions(model: CodeModel) -> None:
    """Check that a model leaves positions and caches to its caller.

    Raises:
        ArgumentError: it does not. The message is a predicate about "it", the model.
    """
    assert model.probed is not None
    if model.probed.extra:
        raise ArgumentError(f"it adds {model.probed.extra} positions of its own to a prompt.")
    adapter = getattr(model.model, "active_peft_config", None)
    if getattr(adapter, "is_prompt_learning", False):
        raise ArgumentError("its adapter adds virtual tokens or states of its own to a prompt.")
    if getattr(adapter, "alora_invocation_tokens", None):
        raise ArgumentError("its adapter looks for tokens in whole sequences.")


def _check_is_number(difference: float) -> None:
    if difference != difference:
        raise ArgumentError("its logits are NaN in a trial on random tokens.")


def _crossed(model: CodeModel) -> tuple[Any, ...]:
    """Try the decoder of an encoder-decoder model with a cache.

    Returns:
        The cross-attention layers, if the beams of a prompt can share its keys and values.

    Raises:
        ArgumentError: it does not run with a cache, or gives other logits than for whole sequences. The message is a
            predicate about "it".
    """
    layers = cross_attentions(model.model)
    if layers:
        with suppress(ArgumentError):
            # Without padding there is no mask, and a layer could take the beams for the tokens of a sequence.
            _check_cache(model, PROMPTS, layers)
            _check_cache(model, (PROMPTS[0], PROMPTS[0]), layers)
            return layers
    _check_cache(model, PROMPTS, ())
    return ()


def _check_cache(model: CodeModel, lengths: tuple[int, ...], crossed: tuple[Any, ...]) -> None:
    """Compare the decoder with a cache and without, on prompts of these lengths.

    Raises:
        ArgumentError: as for `_crossed`.
    """
    ids = random_ids(model, (len(lengths), max(lengths)))
    prompts = [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]
    whole = EncodedDecoder(model, prompts, has_cache=False)
    try:
        cached = EncodedDecoder(model, prompts, has_cache=True, crossed=crossed)
        for beams in random_searches(model, len(prompts)):
            difference = float(relative_difference(cached(beams), whole(beams)))
            _check_is_number(difference)
            if difference > tolerance_of(model):
                raise ArgumentError(f"its logits with a cache differ by {difference:.1e} of the largest.")
    except FAILURES as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"it cannot run with a cache: {type(error).__name__}: {error}") from None
