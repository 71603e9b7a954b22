"""Writing: the index, the tokens and the sets of a processor in an engine's process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import and_
from typing import Any

from hedgerow.constraints.requests import batch_rules
from hedgerow.hf.loading import load_tokenizer, load_tokens
from hedgerow.hf.searched import trie_of
from hedgerow.serve.rules import read_rules, sets_of
from hedgerow.vllm.remote import open_index
from hedgerow.vllm.rows import RowMasks, RowRules
from hedgerow.vllm.settings import read_settings


class Writing:
    """What a processor needs to make a model write SIDs.

    Args:
        model: the folder of the model, with its tokenizer.
        ends: the tokens that end a text, beside that of the tokenizer: one, a list, or None.

    Attributes:
        sets: the named sets, as they were at the start.
        masks: the masks of rows.

    Raises:
        HedgerowError: the index, the tokens or the rules cannot be loaded.
    """

    def __init__(self, model: str, ends: Any = None) -> None:
        settings, tokenizer = read_settings(), load_tokenizer(model)
        tokens, _ = load_tokens(model, tokenizer, settings.pattern)
        self._index, self._version = trie_of(open_index(settings))
        self.sets = sets_of(self._index, {} if settings.rules is None else read_rules(settings.rules))
        listed = [tokenizer.eos_token_id, *(ends if isinstance(ends, Iterable) else [ends])]
        searched = self._index if self._version is None else self._version
        known = [token for token in listed if isinstance(token, int)]
        self.masks = RowMasks(searched, tokens, known, codes_in_text=settings.codes_in_text)

    def rules(self, given: Mapping[str, Any] | None) -> RowRules | None:
        """The rules of a request that was accepted: see `CatalogProcessor`. None if it has none."""
        if given is None:
            return None
        sets = [self.sets[name] for name in given.get("sets", ())]
        items = reduce(and_, sets) if sets else None
        items = items if self._version is None else self._version.restrict(items)
        excluded = self._known(given.get("exclude", ()))
        rules = None
        if items is not None or excluded:
            rules = batch_rules(self._index, 1, items, [excluded] if excluded else None)
        return RowRules(rules, given.get("written", 0), given.get("log_probs", False))

    def _known(self, ids: Iterable[Any]) -> list[Any]:
        """The ids of the type that the index has. Others are of no item, and would be an error."""
        kind = type(self._index.item_ids[0].as_py()) if len(self._index) else str
        return [each for each in ids if type(each) is kind]
