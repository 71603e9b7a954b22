"""Grammar engines, one matcher or automaton state a beam: xgrammar, llguidance, outlines-core. All exact.

Each is given the form of a set of SIDs that suits it best: a trie as a grammar, in which a code is one token.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from hedgerow.bench.arrays import Array, Arrays
from hedgerow.bench.baselines.base import (
    INF,
    Baseline,
    Found,
    Problem,
    Promise,
    Search,
    Unavailable,
    extended,
    optional,
    top_candidates,
)
from hedgerow.bench.baselines.cpu_trie import Trie, trie_of

# A token's text is one character of these, which no regular expression reads as a sign.
FIRST_CHARACTER, CHARACTERS = 0x4E00, 0x5000
Matchers = list[list[Any]]


class GrammarEngine(Baseline):
    """The loop around an engine: masks from the matchers, top-M on the device, matchers that follow the winners."""

    promise = Promise.EXACT
    on_host = True
    module: ClassVar[str]

    def __init__(self, problem: Problem, arrays: Arrays) -> None:
        super().__init__(problem, arrays)
        self.vocabulary = max(self.codebook_sizes)
        self.root = self.compile(optional(self.module, self.name), trie_of(problem.sids))

    @abstractmethod
    def compile(self, engine: Any, trie: Trie) -> Any:
        """Returns the matcher at the root; `engine` is the module."""

    @abstractmethod
    def fill(self, matcher: Any, row: np.ndarray) -> None:
        """Sets the allowed codes in a row [V] of False."""

    @abstractmethod
    def advanced(self, matcher: Any, code: int) -> Any:
        """Returns a matcher one code further; the one given stays, since other beams may continue it."""

    def start(self, batch: int) -> tuple[Search, Matchers]:
        """Returns the root, and its matcher for each request."""
        return super().start(batch), [[self.root]] * batch

    def step(self, tables: Any, search: tuple[Search, Matchers], logits: Array, beam_width: int) -> Any:  # noqa: ARG002
        """Masks, ranks, and forks a matcher for every winner."""
        arrays, (beams, matchers) = self.arrays, search
        mask = np.zeros((*logits.shape[:2], self.vocabulary), bool)
        for rows, of_request in zip(mask, matchers, strict=True):
            for row, matcher in zip(rows, of_request, strict=True):
                if matcher is not None:
                    self.fill(matcher, row)
        size = logits.shape[-1]
        allowed = arrays.put(mask[..., :size])
        scores = arrays.xp.where(allowed, beams.scores[..., None] + arrays.log_softmax(logits), -INF)
        best, at = top_candidates(arrays, scores, beam_width)
        parents, codes = at // size, arrays.xp.astype(at % size, arrays.xp.int32)
        following = [
            [self.advanced(of_request[p], c) if s > -INF else None for p, c, s in zip(*winners, strict=True)]
            for of_request, *winners in zip(
                matchers, *(arrays.get(x).tolist() for x in (parents, codes, best)), strict=True
            )
        ]
        return Search(extended(arrays, beams.codes, parents, codes), best), following

    def found(self, search: tuple[Search, Matchers]) -> Found:
        """Returns what the beams found."""
        return super().found(search[0])


class XGrammar(GrammarEngine):
    """A trie of `Token(id)`: its best form, since no text is parsed."""

    name = "xgrammar"
    module = "xgrammar"
    most_items = 100_000

    def compile(self, engine: Any, trie: Trie) -> Any:
        """Compiles for a vocabulary of the codes and a stop token."""
        tokens = [_character(code) for code in range(self.vocabulary)] + ["</s>"]
        info = engine.TokenizerInfo(tokens, stop_token_ids=[self.vocabulary])
        grammar = "root ::= " + _nested(trie, lambda code: f"Token({code}) ", "|")
        self.bitmask = engine.allocate_token_bitmask(1, info.vocab_size)
        self.words = self.bitmask.numpy()[0]
        return engine.GrammarMatcher(engine.GrammarCompiler(info).compile_grammar(grammar))

    def fill(self, matcher: Any, row: np.ndarray) -> None:
        """Unpacks its bitmask; where it says that all are allowed, it leaves the mask as it was."""
        if matcher.fill_next_token_bitmask(self.bitmask):
            row[:] = _unpacked(self.words, self.vocabulary)
        else:
            row[:] = True

    def advanced(self, matcher: Any, code: int) -> Any:
        """Forks, then accepts."""
        fork = matcher.fork()
        fork.accept_token(code)
        return fork


class LlGuidance(GrammarEngine):
    """A Lark grammar in the shape of the trie, of token ids: regular expressions do not see tokens of no text."""

    name = "llguidance"
    module = "llguidance"
    most_items = 30_000

    def compile(self, engine: Any, trie: Trie) -> Any:
        """Compiles."""
        tokenizer: Any = engine.LLTokenizer(engine.TokenizerWrapper(_Tokens(self.vocabulary)))
        grammar = engine.grammar_from("lark", "start: " + _nested(trie, lambda code: f"<[{code}]> ", "|"))
        matcher: Any = engine.LLMatcher(tokenizer, grammar)
        if matcher.is_error():
            raise Unavailable(f"it refuses the grammar: {matcher.get_error()[:80]}")
        return matcher

    def fill(self, matcher: Any, row: np.ndarray) -> None:
        """Unpacks its bitmask."""
        row[:] = _unpacked(np.frombuffer(matcher.compute_bitmask(), np.int32), self.vocabulary)

    def advanced(self, matcher: Any, code: int) -> Any:
        """Copies, then consumes."""
        copy = matcher.deep_copy()
        copy.consume_token(code)
        return copy


class OutlinesCore(GrammarEngine):
    """A regular expression in the shape of the trie, compiled to an automaton; a beam is at one of its states."""

    name = "outlines-core"
    module = "outlines_core"
    most_items = 10_000

    def compile(self, engine: Any, trie: Trie) -> Any:
        """Compiles the automaton."""
        _check_characters(self.vocabulary)
        tokens: Any = {_character(code): [code] for code in range(self.vocabulary)}
        self.index: Any = engine.Index(_nested(trie, _character, "|"), engine.Vocabulary(self.vocabulary, tokens))
        return self.index.get_initial_state()

    def fill(self, matcher: Any, row: np.ndarray) -> None:
        """Asks for the tokens that leave the state."""
        tokens = self.index.get_allowed_tokens(matcher) or []
        row[[token for token in tokens if token < self.vocabulary]] = True

    def advanced(self, matcher: Any, code: int) -> Any:
        """Follows the transition."""
        return self.index.get_next_state(matcher, code)


class _Tokens:
    """A tokenizer in llguidance's terms, of special tokens alone."""

    def __init__(self, vocabulary: int) -> None:
        self.eos_token_id, self.bos_token_id = vocabulary, None
        # 0xff marks a token that stands for no text.
        self.tokens = [b"\xff[%d]" % code for code in range(vocabulary)] + [b"</s>"]
        self.special_token_ids = list(range(vocabulary + 1))

    def __call__(self, _text: Any) -> list[int]:
        return []


def _nested(trie: Trie, token: Any, either: str) -> str:
    """Returns a trie as one expression: a code, then what may follow it."""
    branches = [token(code) + (_nested(below, token, either) if below else "") for code, below in trie.items()]
    return branches[0] if len(branches) == 1 else f"({either.join(branches)})"


def _character(code: int) -> str:
    return chr(FIRST_CHARACTER + code)


def _check_characters(vocabulary: int) -> None:
    if vocabulary > CHARACTERS:
        raise Unavailable(f"the codes are written as one character each, {CHARACTERS:,} at most")


def _unpacked(words: np.ndarray, size: int) -> np.ndarray:
    return np.unpackbits(words.view(np.uint8), count=size, bitorder="little").view(bool)
