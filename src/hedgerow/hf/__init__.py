"""Hugging Face models: a Retriever, and a logits processor for `generate()`."""

from hedgerow.errors import BackendError

try:
    from hedgerow.hf.explain import Explanation
    from hedgerow.hf.processor import CatalogLogitsProcessor
    from hedgerow.hf.retriever import Retriever
except ModuleNotFoundError as error:
    raise BackendError(
        f"hedgerow.hf needs the package {error.name!r}; install it with: pip install 'hedgerow[hf]'"
    ) from error

__all__ = ["CatalogLogitsProcessor", "Explanation", "Retriever"]
