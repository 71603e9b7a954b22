"""Grammar engines, with one matcher or automaton state per beam: xgrammar, llguidance, outlines-core. All exact.

The grammar has the shape of the trie, and each code is one token: the best form of a set of SIDs for these engines.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from hedgerow.bench.arrays import Array, Arrays
from hedgerow.bench.baselines import base
from hedgerow.bench.baselines.base import INF, Baseline, Problem, Promise, Search, Unavailable
from hedgerow.bench.baselines.cpu_trie import Trie, trie_of

# The text of a token is one of these characters, none of which is special in a regular expression.
FIRST_CHARACTER, CHARACTERS = 0x4E00, 0x5000
Matchers = list[list[Any]]


class GrammarEngine(Baseline):
    """The loop around an engine: masks from the matchers, top-M on the device, and a matcher for each new beam."""

    promise = Promise.EXACT
    on_host = True
    module: ClassVar[str]

    def __init__(self, problem: Problem, arrays: Arrays) -> None:
        super().__init__(problem, arrays)
        self.num_codes = max(self.codebook_sizes)
        self.root = self.compile(base.optional(self.module, self.name), trie_of(problem.sids))

    @abstractmethod
    def compile(self, engine: Any, trie: Trie) -> Any:
        """Compile the trie and return the matcher at the root. `engine` is the module."""

    @abstractmethod
    def fill(self, matcher: Any, row: np.ndarray) -> None:
        """Set the allowed codes in a row [C] of False."""

    @abstractmethod
    def advanced(self, matcher: Any, code: int) -> Any:
        """A new matcher, one code further. `matcher` does not change, because other beams may continue it."""

    def start(self, batch: int) -> tuple[Search, Matchers]:
        """The root, and its matcher for each request."""
        return super().start(batch), [[self.root]] * batch

    def step(self, tables: Any, search: tuple[Search, Matchers], logits: Array, beam_width: int) -> Any:  # noqa: ARG002
        """Mask, rank, and create a matcher for every new beam."""
        arrays, (beams, matchers) = self.arrays, search
        mask = np.zeros((*logits.shape[:2], self.num_codes), bool)
        for rows, matchers_of_request in zip(mask, matchers, strict=True):
            for row, matcher in zip(rows, matchers_of_request, strict=True):
                if matcher is not None:
                    self.fill(matcher, row)
        size = logits.shape[-1]
        allowed = arrays.put(mask[..., :size])
        scores = arrays.xp.where(allowed, beams.scores[..., None] + arrays.log_softmax(logits), -INF)
        beams, winners = base.select(arrays, beams, scores, beam_width)
        on_host = (arrays.get(x).tolist() for x in (winners.parents, beams.codes[..., -1], beams.scores))
        next_matchers = [
            [
                self.advanced(matchers_of_request[parent], code) if score > -INF else None
                for parent, code, score in zip(*columns, strict=True)
            ]
            for matchers_of_request, *columns in zip(matchers, *on_host, strict=True)
        ]
        return beams, next_matchers

    def result(self, search: tuple[Search, Matchers]) -> base.SearchResult:
        """The result of the beams."""
        return super().result(search[0])


class XGrammar(GrammarEngine):
    """A grammar of `Token(id)`: the fastest form, because no text is parsed."""

    name = "xgrammar"
    module = "xgrammar"
    max_items = 100_000

    def compile(self, engine: Any, trie: Trie) -> Any:
        """Compile for a vocabulary of the codes and a stop token."""
        tokens = [_character(code) for code in range(self.num_codes)] + ["</s>"]
        info = engine.TokenizerInfo(tokens, stop_token_ids=[self.num_codes])
        grammar = "root ::= " + _nested(trie, lambda code: f"Token({code}) ", "|")
        self.bitmask = engine.allocate_token_bitmask(1, info.vocab_size)
        self.words = self.bitmask.numpy()[0]
        return engine.GrammarMatcher(engine.GrammarCompiler(info).compile_grammar(grammar))

    def fill(self, matcher: Any, row: np.ndarray) -> None:
        """Unpack the bitmask. If all tokens are allowed, xgrammar returns False and does not fill it."""
        if matcher.fill_next_token_bitmask(self.bitmask):
            row[:] = _unpacked(self.words, self.num_codes)
        else:
            row[:] = True

    def advanced(self, matcher: Any, code: int) -> Any:
        """Fork, then accept the token."""
        fork = matcher.fork()
        fork.accept_token(code)
        return fork


class LlGuidance(GrammarEngine):
    """A Lark grammar of token ids in the shape of the trie; regular expressions do not match tokens without text."""

    name = "llguidance"
    module = "llguidance"
    max_items = 30_000

    def compile(self, engine: Any, trie: Trie) -> Any:
        """Compile the grammar."""
        tokenizer: Any = engine.LLTokenizer(engine.TokenizerWrapper(_Tokens(self.num_codes)))
        grammar = engine.grammar_from("lark", "start: " + _nested(trie, lambda code: f"<[{code}]> ", "|"))
        matcher: Any = engine.LLMatcher(tokenizer, grammar)
        if matcher.is_error():
            raise Unavailable(f"llguidance rejects the grammar: {matcher.get_error()[:80]}")
        return matcher

    def fill(self, matcher: Any, row: np.ndarray) -> None:
        """Unpack the bitmask."""
        row[:] = _unpacked(np.frombuffer(matcher.compute_bitmask(), np.int32), self.num_codes)

    def advanced(self, matcher: Any, code: int) -> Any:
        """Copy, then consume the token."""
        copy = matcher.deep_copy()
        copy.consume_token(code)
        return copy


class OutlinesCore(GrammarEngine):
    """A regular expression in the shape of the trie, compiled to an automaton. The matcher of a beam is a state."""

    name = "outlines-core"
    module = "outlines_core"
    max_items = 10_000

    def compile(self, engine: Any, trie: Trie) -> Any:
        """Compile the automaton."""
        _check_characters(self.num_codes)
        tokens: Any = {_character(code): [code] for code in range(self.num_codes)}
        self.index: Any = engine.Index(_nested(trie, _character, "|"), engine.Vocabulary(self.num_codes, tokens))
        return self.index.get_initial_state()

    def fill(self, matcher: Any, row: np.ndarray) -> None:
        """Allow the tokens of the transitions from the state."""
        tokens = self.index.get_allowed_tokens(matcher) or []
        row[[token for token in tokens if token < self.num_codes]] = True

    def advanced(self, matcher: Any, code: int) -> Any:
        """The state after the transition."""
        return self.index.get_next_state(matcher, code)


class _Tokens:
    """A tokenizer for llguidance that has only special tokens."""

    def __init__(self, num_codes: int) -> None:
        self.eos_token_id, self.bos_token_id = num_codes, None
        # The byte 0xff marks a token without text.
        self.tokens = [b"\xff[%d]" % code for code in range(num_codes)] + [b"</s>"]
        self.special_token_ids = list(range(num_codes + 1))

    def __call__(self, _text: Any) -> list[int]:
        return []


def _nested(trie: Trie, token: Any, separator: str) -> str:
    """A trie as one expression: each code is followed by the expression of its children."""
    branches = [token(code) + (_nested(child, token, separator) if child else "") for code, child in trie.items()]
    return branches[0] if len(branches) == 1 else f"({separator.join(branches)})"


def _character(code: int) -> str:
    return chr(FIRST_CHARACTER + code)


def _check_characters(num_codes: int) -> None:
    if num_codes > CHARACTERS:
        raise Unavailable(f"each code is one character, and there are {CHARACTERS:,}; got {num_codes:,} codes")


def _unpacked(words: np.ndarray, size: int) -> np.ndarray:
    return np.unpackbits(words.view(np.uint8), count=size, bitorder="little").view(bool)
