"""Hugging Face models: a Retriever, and a logits processor for `generate()`."""

from hedgerow.errors import MissingDependencyError

try:
    from hedgerow.hf.custom_generate import generate
    from hedgerow.hf.explain import Explanation
    from hedgerow.hf.plot import plot_beams
    from hedgerow.hf.processor import CatalogLogitsProcessor
    from hedgerow.hf.retriever import Retriever
    from hedgerow.hf.shapes import Shapes
except ModuleNotFoundError as error:
    package = str(error.name).partition(".")[0]
    # An import error of another package is a fault, which the message about the extra would hide.
    if package not in ("torch", "transformers"):
        raise
    raise MissingDependencyError.of("hedgerow.hf", package, "hf") from error

__all__ = ["CatalogLogitsProcessor", "Explanation", "Retriever", "Shapes", "generate", "plot_beams"]
