"""Compiled grammars and where an output stands in them: masks over the vocabulary.

The only importer of llguidance (Microsoft's Earley parser over byte tries), which is imported on
first use, so that an engine runs without it.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.errors import GrammarError, GrammarLimitError, PenstockError, UnsupportedFieldError
from penstock.grammar.gbnf import missing

Bits = NDArray[np.uint32]
"""[words]: bit i % 32 of word i // 32 stands for token i"""

_LIMITS = ("too complex", "too large", "too many", "limit", "fuel", "assertion")


class Vocabulary:
    """The tokens of one model as bytes.

    size: of the model's vocabulary; what the tokenizer has beyond it, or has not, is never allowed.
    end: id of the tokenizer's `vocabulary.END`, which says "may end here" and nothing else.
    """

    def __init__(self, tokenizer_json: str, end: int, size: int) -> None:
        """Raises UnsupportedFieldError without llguidance, and for a tokenizer that it cannot
        read."""
        try:
            import llguidance
        except ImportError:
            raise missing() from None
        self.size, self.end = size, end
        self._library: Any = llguidance
        try:
            self._tokenizer = llguidance.LLTokenizer(
                tokenizer_json, n_vocab=max(size, end + 1), eos_token=end
            )
        except BaseException as error:  # a panic of its Rust code is no Exception
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise UnsupportedFieldError(
                f"Structured output cannot be had with this model's tokenizer: {error}.",
                cure="Serve a model with a byte-level or byte-fallback tokenizer.json.",
            ) from None

    def compile(self, grammar: str) -> Compiled:
        """Raises GrammarError, GrammarLimitError."""
        limits = self._library.LLParserLimits(verbose_errors=False)
        matcher = self._library.LLMatcher(self._tokenizer, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            raise _error(matcher.get_error())
        return Compiled(matcher, self)

    def token_bytes(self, token_id: int) -> bytes:
        """What the compiler takes a token for."""
        return bytes(self._tokenizer.decode_bytes([token_id]))


class Compiled:
    """One grammar; `matcher` begins an output."""

    def __init__(self, template: Any, vocabulary: Vocabulary) -> None:
        self._template = template
        self._vocabulary = vocabulary

    def matcher(self) -> Matcher:
        return Matcher(self._template.deep_copy(), self._vocabulary)


class Matcher:
    """Where one output stands. Not thread-safe."""

    def __init__(self, matcher: Any, vocabulary: Vocabulary) -> None:
        self._matcher = matcher
        self._size = vocabulary.size
        self._end = vocabulary.end

    def accept(self, tokens: list[int]) -> None:
        """Go on by tokens. Raises GrammarError when one is not allowed, GrammarLimitError."""
        if not self._matcher.consume_tokens(tokens):
            raise _error(self._matcher.get_error())

    def allowed(self) -> tuple[Bits, bool]:
        """The tokens that may come next, and whether the output may end here. Raises as accept."""
        raw = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            raise _error(self._matcher.get_error())
        whole = np.frombuffer(raw, np.uint32)
        word, bit = self._end // 32, np.uint32(1 << (self._end % 32))
        may_end = bool(whole[word] & bit)
        words, rest = -(-self._size // 32), self._size % 32
        bits = whole[:words].copy()
        if word < words:
            bits[word] &= ~bit
        if rest:  # ids that the tokenizer has and the model has not
            bits[-1] &= np.uint32((1 << rest) - 1)
        return bits, may_end


def _error(told: str) -> PenstockError:
    """The library's words as a typed error."""
    words = re.sub(r"^at \d+\(\d+\): ", "", told.strip().partition("\n")[0]).rstrip(".:")
    told = f"The grammar cannot be used: {words}."
    if any(word in words.lower() for word in _LIMITS):
        return GrammarLimitError(told, cure="Simplify it.")
    return GrammarError(told, cure="Mend the schema, regex or grammar.")
