"""Prompting: the token ids of texts, chats and histories, as the model of a `Retriever` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hedgerow.hf.history import MissingItems, prompt_of_history
from hedgerow.hf.prompts import Ids
from hedgerow.hf.searcher import Searcher


class Prompting:
    """A base of `Retriever`: its prompts."""

    _searcher: Searcher

    def encode(
        self,
        prompts: Any,
        *,
        add_special_tokens: bool | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[Ids]:
        """Convert prompts to the token ids that the model reads, begin delimiter included.

        Args:
            prompts: as for `retrieve`. Of padded token ids without an `attention_mask`, the padding is removed, as in
                `generate`.
            add_special_tokens: for these prompts. Default: that of the retriever.
            chat_template_kwargs: for these prompts, beside those of the retriever.

        Raises:
            ArgumentError: a prompt is empty, too long or not readable.

        Examples:
            ```python
            import hedgerow as hr
            from hedgerow.demo.films import load_catalog, load_retriever

            retriever = load_retriever(hr.build_index(load_catalog()))
            (ids,) = retriever.encode("Recommend me a western")
            assert retriever.retrieve(ids)[0].item_ids == retriever.retrieve("Recommend me a western")[0].item_ids
            ```
        """
        return self._searcher.encode(
            prompts, add_special_tokens=add_special_tokens, chat_template_kwargs=chat_template_kwargs
        )

    def history_prompt(self, item_ids: Any, *, missing: MissingItems = "raise") -> Ids:
        """Write the history of a user as a prompt: the tokens of each item, as the model was trained to read them.

        The form is `retriever.tokens.history`, which `hedgerow train` stores with the model. Without one, a history is
        the tokens of its items. The result of `retrieve` can contain items of the history: pass them as `exclude`, too.

        Args:
            item_ids: the ids of the items that the user has seen, oldest first. Of a long history, the latest items are
                used.
            missing: for ids that are not in the index: "raise" an error; "warn": skip them, with a warning that names
                their number and the first ones; or "ignore" them.

        Returns:
            The token ids of the prompt.

        Raises:
            ArgumentError: an id is not in the index, or of another type; or there are no items.

        Examples:
            ```python
            import hedgerow as hr
            from hedgerow.demo.films import load_catalog, load_retriever

            index = hr.build_index(load_catalog())
            retriever = load_retriever(index)
            seen = index.item_ids[:2].to_pylist()
            prompt = retriever.history_prompt(seen)
            assert len(prompt) == 2 * index.num_levels
            (results,) = retriever.retrieve(prompt, exclude=seen)
            assert not set(results.item_ids) & set(seen)
            ```
        """
        return prompt_of_history(self._searcher.search.model.tokens, self._searcher.index, item_ids, missing)
