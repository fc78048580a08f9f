"""Grammars on their way to be compiled, and those that are.

    loop      admit(submission) -> held, or straight on   settled() -> who may go on, or must end
    threads   read the vocabulary once, compile
    runner    compiled(grammar)

A compiled grammar is kept for later requests, the least recently used goes first. The key is its
text: an engine has one tokenizer.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from penstock.core.request import Submission
from penstock.errors import EngineError, GrammarLimitError, PenstockError
from penstock.grammar.compiled import Compiled, Vocabulary

THREADS = 2
"""so that one grammar that takes long does not hold up all others"""


class Grammars:
    """Shared by the engine's loop and its runner; may be called from any thread.

    vocabulary: reads the tokenizer; called once, with the first grammar.
    max_bytes, timeout_s: of a grammar's text, and of the wait for it. keep: compiled ones.
    """

    def __init__(
        self,
        vocabulary: Callable[[], Vocabulary],
        max_bytes: int = 2**20,
        timeout_s: float = 10.0,
        keep: int = 256,
    ) -> None:
        self._read = vocabulary
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._keep = keep
        self._lock = Lock()
        self._reading = Lock()
        self._vocabulary: Vocabulary | None = None
        self._found: OrderedDict[str, Future[Compiled]] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None
        self._held: dict[str, tuple[Future[Compiled], float]] = {}

    # For the loop

    def admit(self, submission: Submission) -> bool:
        """Whether the request can go on at once; else it is to be held until `settled` names it.
        Raises GrammarError, and UnsupportedFieldError where no grammar can be compiled."""
        grammar = submission.sampling.grammar
        if not grammar:
            return True
        if len(grammar) > self._max_bytes:
            raise GrammarLimitError(
                f"The grammar has {len(grammar)} bytes, more than the {self._max_bytes} allowed.",
                cure="Send a smaller one, or serve with a larger --grammar-max-bytes.",
            )
        found = self._look_up(grammar)
        if found.done():
            if (error := _typed(found.exception())) is not None:
                raise error
            return True
        self._held[submission.id] = (found, time.monotonic() + self._timeout_s)
        return False

    def settled(self) -> list[tuple[str, PenstockError | None]]:
        """Requests that were held and need not wait any longer, each with its error if it has
        one."""
        if not self._held:
            return []
        now, settled = time.monotonic(), list[tuple[str, PenstockError | None]]()
        for request_id, (found, deadline) in list(self._held.items()):
            if found.done():
                settled.append((request_id, _typed(found.exception())))
            elif now > deadline:
                settled.append((request_id, self._too_late()))
        for request_id, _ in settled:
            del self._held[request_id]
        return settled

    def _too_late(self) -> PenstockError:
        return GrammarLimitError(
            f"The grammar was not compiled within {self._timeout_s:g} s.",
            cure="Simplify it, or serve with a larger --grammar-timeout-s.",
        )

    # For the runner

    def compiled(self, grammar: str) -> Compiled:
        """Waits for it. Raises as `admit`."""
        return self._look_up(grammar).result()

    def _look_up(self, grammar: str) -> Future[Compiled]:
        with self._lock:
            found = self._found.pop(grammar, None)
            if found is None:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="grammar")
                found = self._pool.submit(self._compile, grammar)
            self._found[grammar] = found
            while len(self._found) > self._keep:
                self._found.popitem(last=False)
            return found

    def _compile(self, grammar: str) -> Compiled:
        with self._reading:
            if self._vocabulary is None:
                self._vocabulary = self._read()
        return self._vocabulary.compile(grammar)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


def _typed(error: BaseException | None) -> PenstockError | None:
    if error is None or isinstance(error, PenstockError):
        return error
    return EngineError(f"A grammar could not be compiled: {type(error).__name__}: {error}")
