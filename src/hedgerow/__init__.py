"""Constrained decoding for generative retrieval: a language model that can only generate items that exist."""

import logging as _logging

from hedgerow import metrics
from hedgerow._version import __version__ as __version__
from hedgerow.candidates import CandidateIndex
from hedgerow.catalog.catalog import Catalog
from hedgerow.constraints.sets import ConstraintSet
from hedgerow.coverage import Coverage
from hedgerow.decode.beams import Beams
from hedgerow.decode.capacity import Capacity
from hedgerow.decode.device import DeviceIndex
from hedgerow.decode.divided import best_of
from hedgerow.decode.log_probs import log_probs
from hedgerow.decode.masked_probability import masked_probability
from hedgerow.decode.prepare import prepare_constraints
from hedgerow.decode.prepared import PreparedConstraints
from hedgerow.decode.search import beam_search, init_beams
from hedgerow.decode.step import step
from hedgerow.errors import (
    ArgumentError,
    BackendError,
    CatalogError,
    ConstraintError,
    DeadlineError,
    HedgerowError,
    IndexFileError,
    MissingDependencyError,
    PromptLengthError,
    QuantizerFileError,
    VersionError,
)
from hedgerow.generated import results_of
from hedgerow.index.diff import Diff, diff
from hedgerow.indexes import build_index, concat, load_index, merge
from hedgerow.live.live import LiveIndex
from hedgerow.live.version import Version
from hedgerow.request import Request
from hedgerow.results import Results
from hedgerow.semantic.embed import embed_texts
from hedgerow.semantic.ids import semantic_ids
from hedgerow.semantic.quantizer import Quantizer, SemanticIds
from hedgerow.token_files import HistoryForm
from hedgerow.tokens import TokenMap
from hedgerow.trie_index import TrieIndex

__all__ = [
    "ArgumentError",
    "BackendError",
    "Beams",
    "CandidateIndex",
    "Capacity",
    "Catalog",
    "CatalogError",
    "ConstraintError",
    "ConstraintSet",
    "Coverage",
    "DeadlineError",
    "DeviceIndex",
    "Diff",
    "HedgerowError",
    "HistoryForm",
    "IndexFileError",
    "LiveIndex",
    "MissingDependencyError",
    "PreparedConstraints",
    "PromptLengthError",
    "Quantizer",
    "QuantizerFileError",
    "Request",
    "Results",
    "SemanticIds",
    "TokenMap",
    "TrieIndex",
    "Version",
    "VersionError",
    "beam_search",
    "best_of",
    "build_index",
    "concat",
    "diff",
    "embed_texts",
    "init_beams",
    "load_index",
    "log_probs",
    "masked_probability",
    "merge",
    "metrics",
    "prepare_constraints",
    "results_of",
    "semantic_ids",
    "step",
]

# The application chooses where the log goes.
_logging.getLogger(__name__).addHandler(_logging.NullHandler())
