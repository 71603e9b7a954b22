"""All methods, in the order of the tables."""

from __future__ import annotations

from hedgerow.bench.baselines.base import Baseline
from hedgerow.bench.baselines.cpu_trie import CpuTrie
from hedgerow.bench.baselines.grammars import LlGuidance, OutlinesCore, XGrammar
from hedgerow.bench.baselines.hash_bitmap import HashBitmap
from hedgerow.bench.baselines.hf_prefix import HuggingFacePrefix
from hedgerow.bench.baselines.marisa import MarisaTrie
from hedgerow.bench.baselines.ours import Hedgerow, HedgerowCompact, HedgerowNative, HedgerowTriton
from hedgerow.bench.baselines.ppv import PpvApproximate, PpvCarried, PpvExact
from hedgerow.bench.baselines.rectokens import RecTokens
from hedgerow.bench.baselines.static_published import StaticPublished
from hedgerow.bench.baselines.unconstrained import Unconstrained

Methods = tuple[type[Baseline], ...]

OURS: Methods = (Hedgerow, HedgerowNative, HedgerowTriton)
PAPER: Methods = (
    Unconstrained,
    *OURS,
    HedgerowCompact,
    StaticPublished,
    PpvApproximate,
    HashBitmap,
    PpvCarried,
    PpvExact,
    CpuTrie,
)
PEERS: Methods = (
    Unconstrained,
    *OURS,
    StaticPublished,
    CpuTrie,
    HuggingFacePrefix,
    MarisaTrie,
    XGrammar,
    LlGuidance,
    OutlinesCore,
    RecTokens,
)
