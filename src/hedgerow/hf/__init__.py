"""Hugging Face models: a Retriever, and a logits processor for `generate()`."""

from hedgerow.errors import MissingDependencyError

try:
    from hedgerow.hf.explain import Explanation
    from hedgerow.hf.plot import plot_beams
    from hedgerow.hf.processor import CatalogLogitsProcessor
    from hedgerow.hf.retriever import Retriever
except ModuleNotFoundError as error:
    raise MissingDependencyError.of("hedgerow.hf", str(error.name), "hf") from error

__all__ = ["CatalogLogitsProcessor", "Explanation", "Retriever", "plot_beams"]
