"""Constrained decoding for generative retrieval: a language model that can only name items that exist."""

from hedgerow import metrics
from hedgerow._version import __version__ as __version__
from hedgerow.audit import Coverage, removed_mass
from hedgerow.catalog import Catalog
from hedgerow.constraints import ConstraintSet
from hedgerow.decode.beams import Beams
from hedgerow.decode.capacity import Capacity
from hedgerow.decode.constrain import constrain
from hedgerow.decode.constrained import Constraints
from hedgerow.decode.device import DeviceIndex
from hedgerow.decode.search import beam_search, start
from hedgerow.decode.step import step
from hedgerow.errors import (
    ArgumentError,
    BackendError,
    CatalogError,
    ConstraintError,
    HedgerowError,
    IndexFileError,
    QuantizerFileError,
    VersionError,
)
from hedgerow.index.build import build_index
from hedgerow.index.diff import Diff, diff
from hedgerow.index.files import load_index
from hedgerow.index.merge import merge, subset
from hedgerow.index.trie import TrieIndex
from hedgerow.live.live import LiveIndex
from hedgerow.live.version import Version
from hedgerow.results import Results
from hedgerow.semantic.embed import embed_texts
from hedgerow.semantic.ids import SemanticIds, semantic_ids
from hedgerow.semantic.quantizer import Quantizer
from hedgerow.tokens import TokenMap

__all__ = [
    "ArgumentError",
    "BackendError",
    "Beams",
    "Capacity",
    "Catalog",
    "CatalogError",
    "ConstraintError",
    "ConstraintSet",
    "Constraints",
    "Coverage",
    "DeviceIndex",
    "Diff",
    "HedgerowError",
    "IndexFileError",
    "LiveIndex",
    "Quantizer",
    "QuantizerFileError",
    "Results",
    "SemanticIds",
    "TokenMap",
    "TrieIndex",
    "Version",
    "VersionError",
    "beam_search",
    "build_index",
    "constrain",
    "diff",
    "embed_texts",
    "load_index",
    "merge",
    "metrics",
    "removed_mass",
    "semantic_ids",
    "start",
    "step",
    "subset",
]
