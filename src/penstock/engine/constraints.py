"""What tokens the slots' outputs may go on with, worked out while the model computes.

A row's next mask depends on its last token alone, which is known as soon as it is drawn: a thread
works on it from then on, through the host's work and the next forward, until the sampler asks for
it. The depth of the scheduler does not matter, for the runner knows a token a plan earlier.

Bans (min_tokens, late stop ids, bad_words) hold where the grammar leaves something else. Where an
output may end, any stop id of the request may end it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from penstock.core.request import Sampling, Thinking
from penstock.engine.grammars import Grammars
from penstock.errors import EngineError, GrammarError, PenstockError
from penstock.grammar.compiled import Bits, Matcher


@dataclass(slots=True)
class RowMasks:
    """Masks of those rows of a batch that have one."""

    rows: list[int] = field(default_factory=list)
    bits: list[Bits] = field(default_factory=list)
    errors: dict[int, PenstockError] = field(default_factory=dict)
    """by row: it has no next token"""

    def failures(self, tokens: Sequence[int]) -> dict[int, dict[str, object]]:
        """Why rows of a batch get no token, given what was drawn (-1: nothing)."""
        errors = dict(self.errors)
        for row in self.rows:
            if tokens[row] < 0:
                errors[row] = GrammarError(
                    "The grammar and the other parameters leave no token to go on with.",
                    cure="Look at bad_words and logit_bias.",
                )
        return {row: error.to_dict() for row, error in errors.items()}


class Constraint:
    """One output: where it stands in its grammar, and in its thinking section."""

    def __init__(self, sampling: Sampling, output: list[int], vocab_size: int) -> None:
        self._sampling = sampling
        self._output = output
        self._words = -(-vocab_size // 32)
        self._stops = frozenset(sampling.stop_ids)
        self._matcher: Matcher | None = None
        self._thinking = _Section(sampling.thinking) if sampling.thinking else None
        self.bits: Bits | None = None
        """of the next token; None: any"""
        self.error: PenstockError | None = None

    def begin(self, grammars: Grammars) -> None:
        """Build the state from the output so far."""
        if self._sampling.grammar:
            self._matcher = grammars.compiled(self._sampling.grammar).matcher()
            if self._output:
                self._matcher.accept(self._output)
        if self._thinking is not None:
            for token in self._output:
                self._thinking.accept(token)
        self._look_ahead()

    def accept(self, token: int) -> None:
        """A token was drawn."""
        if token in self._stops:  # the request ends
            self.bits = None
            return
        self._output.append(token)
        if self._thinking is not None:
            self._thinking.accept(token)
        if self._matcher is not None:
            self._matcher.accept([token])
        self._look_ahead()

    def _look_ahead(self) -> None:
        forced = self._thinking.forced() if self._thinking is not None else None
        if forced is not None:
            self.bits = self._only([forced])
        elif self._matcher is not None:
            bits, may_end = self._matcher.allowed()
            bits = bits[: self._words]
            if may_end:
                bits |= self._only(self._stops)
            self.bits = self._without(bits, self._banned())
        else:
            self.bits = None

    def _banned(self) -> set[int]:
        """What should not come next, as long as something else can."""
        sampling, output = self._sampling, self._output
        banned = set[int]()
        if len(output) < sampling.min_tokens:
            banned |= self._stops
        else:
            banned.update(sampling.late_stop_ids)
        for word in sampling.bad_words:
            start = len(word) - 1
            if not start or output[-start:] == list(word[:-1]):
                banned.add(word[-1])
        return banned

    def _only(self, tokens: Sequence[int] | frozenset[int] | set[int]) -> Bits:
        bits = np.zeros(self._words, np.uint32)
        for token in tokens:
            bits[token // 32] |= np.uint32(1 << (token % 32))
        return bits

    def _without(self, bits: Bits, banned: set[int]) -> Bits:
        if not banned:
            return bits
        left = bits & ~self._only(banned)
        return left if left.any() else bits


class _Section:
    """Counts the tokens of a thinking section."""

    def __init__(self, bounds: Thinking) -> None:
        self._bounds = bounds
        self._open = bounds.begin is None
        self._closed = False
        self._count = 0

    def accept(self, token: int) -> None:
        if self._closed:
            return
        if token == self._bounds.end:
            self._closed = True
        elif self._open:
            self._count += 1
        elif token == self._bounds.begin:
            self._open = True

    def forced(self) -> int | None:
        """The id that must come next."""
        over = self._open and not self._closed and self._count >= self._bounds.budget
        return self._bounds.end if over else None


class Constraints:
    """Of all slots of one engine. Called from the runner's thread alone."""

    def __init__(self, grammars: Grammars, vocab_size: int, max_slots: int) -> None:
        self._grammars = grammars
        self._vocab_size = vocab_size
        self._slots: list[Constraint | None] = [None] * max_slots
        self._work: list[Future[None] | None] = [None] * max_slots
        """what must be done before the slot's mask is there"""
        self._count = 0
        self._thread: ThreadPoolExecutor | None = None

    def enter(self, slot: int, sampling: Sampling, tokens: list[int], num_prompt: int) -> None:
        """A request takes a slot: new, or back after a preemption. See Sampler.enter."""
        if self._slots[slot] is not None:
            self._slots[slot] = self._work[slot] = None
            self._count -= 1
        if not sampling.grammar and sampling.thinking is None:
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="masks")
        constraint = Constraint(sampling, tokens[num_prompt:], self._vocab_size)
        self._slots[slot] = constraint
        self._work[slot] = self._thread.submit(_begin, constraint, self._grammars)
        self._count += 1

    def masks(self, slots: Sequence[int]) -> RowMasks | None:
        """Of the next token of these slots; None when none has any. Waits for them."""
        if not self._count:
            return None
        found = RowMasks()
        for row, slot in enumerate(slots):
            constraint, work = self._slots[slot], self._work[slot]
            if constraint is None or work is None:
                continue
            work.result()
            if constraint.error is not None:
                found.errors[row] = constraint.error
            elif constraint.bits is not None:
                found.rows.append(row)
                found.bits.append(constraint.bits)
        return found if found.rows or found.errors else None

    def accept(self, slots: Sequence[int], tokens: Sequence[int]) -> None:
        """These tokens were drawn: work on the masks of the next ones begins."""
        if not self._count:
            return
        drawn = [
            (constraint, token, slot)
            for slot, token in zip(slots, tokens, strict=True)
            if (constraint := self._slots[slot]) is not None and token >= 0
        ]
        if drawn and self._thread is not None:
            work = self._thread.submit(_accept, drawn)
            for _, _, slot in drawn:
                self._work[slot] = work


def _begin(constraint: Constraint, grammars: Grammars) -> None:
    try:
        constraint.begin(grammars)
    except Exception as error:
        constraint.error = _typed(error)


def _accept(drawn: list[tuple[Constraint, int, int]]) -> None:
    for constraint, token, _ in drawn:
        if constraint.error is None:
            try:
                constraint.accept(token)
            except Exception as error:
                constraint.error = _typed(error)


def _typed(error: Exception) -> PenstockError:
    if isinstance(error, PenstockError):
        return error
    return EngineError(f"A mask could not be computed: {type(error).__name__}: {error}")
