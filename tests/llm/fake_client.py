"""An engine client that answers from a script, one delta after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from penstock.core.plan import TokenLogprobs
from penstock.core.request import FinishReason, Submission
from penstock.engine.client import Delta, EngineStats, EventSink, ModelInfo
from penstock.llm import AsyncLLM
from penstock.text.tokenizer import Tokenizer

Script = Callable[[Submission], list[Delta]]


class FakeClient:
    """Writes what `script` says for a submission, with a turn of the loop before each delta."""

    def __init__(self, script: Script, max_model_len: int = 100, vocab_size: int = 600) -> None:
        self.script = script
        self.info = ModelInfo(
            vocab_size=vocab_size,
            max_model_len=max_model_len,
            eos_ids=(2,),
            block_size=16,
            num_blocks=64,
            max_num_seqs=8,
            max_num_batched_tokens=256,
            dtype="float32",
            device="cpu",
            architecture="Fake",
        )
        self.submissions: list[Submission] = []
        self.aborts: list[tuple[str, FinishReason]] = []
        self.closed = False
        self._aborted = asyncio.Event()

    async def start(self) -> ModelInfo:
        return self.info

    def submit(self, submissions: list[Submission]) -> list[AsyncIterator[Delta]]:
        self.submissions += submissions
        return [self._answer(submission) for submission in submissions]

    async def _answer(self, submission: Submission) -> AsyncIterator[Delta]:
        for delta in self.script(submission):
            await asyncio.sleep(0)
            reasons = [reason for name, reason in self.aborts if name == submission.id]
            yield Delta(finish=reasons[0]) if reasons else delta
            if reasons:
                return
        while not any(name == submission.id for name, _ in self.aborts):
            self._aborted.clear()
            await self._aborted.wait()

    def abort(self, ids: list[str], reason: FinishReason = FinishReason.ABORT) -> None:
        self.aborts += [(name, reason) for name in ids]
        self._aborted.set()

    def subscribe(self, sink: EventSink) -> None: ...

    def stats(self) -> EngineStats:
        return EngineStats(at=0.0)

    def check_health(self, stuck_after_s: float) -> list[str]:
        return []

    async def close(self) -> None:
        self.closed = True


def deltas(
    ids: list[int], size: int = 1, finish: FinishReason = FinishReason.LENGTH
) -> list[Delta]:
    """The ids in deltas of `size`, the last of them with the finish."""
    pieces = [ids[i : i + size] for i in range(0, len(ids), size)] or [[]]
    found = [Delta(tokens=piece, cached_tokens=3) for piece in pieces]
    found[-1].finish = finish
    return found


def saying(tokenizer: Tokenizer, text: str, size: int = 1) -> Script:
    """Every submission is answered with this text."""
    return lambda submission: deltas(tokenizer.encode(text), size)


def logprobs(ids: list[int]) -> list[TokenLogprobs]:
    """Each token the second best, behind its successor."""
    return [TokenLogprobs(i, -1.0, 2, [i + 1, i], [-0.5, -1.0]) for i in ids]


def llm_over(client: FakeClient, tokenizer: Tokenizer) -> AsyncLLM:
    return AsyncLLM(client, client.info, tokenizer, new_seed=lambda: 77)
