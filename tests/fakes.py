"""Small stand-ins: a scripted executor that checks what it is told to read."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from hashlib import blake2b

from penstock.core.plan import UNKNOWN, Entry, KVGroup, StepPlan, StepResult
from penstock.core.request import Sampling, Submission

FULL = (KVGroup(layers=(0,)),)


def next_token(tokens: Sequence[int], vocab: int = 50) -> int:
    """The fake model: a pure function of everything before."""
    digest = blake2b(repr(list(tokens)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") % vocab


def continuation(prompt: Sequence[int], count: int, stops: Sequence[int] = ()) -> list[int]:
    """What the fake model writes after `prompt`."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(next_token(tokens))
        if tokens[-1] in stops:
            break
    return tokens[len(prompt) :]


class FakeExecutor:
    """Keeps a paged KV of (position, token, adapter) and asserts that every key that a row sees is
    the row's own: a block that was freed, shared or matched wrongly shows at once."""

    def __init__(self, groups: tuple[KVGroup, ...], block_size: int) -> None:
        self.groups = groups
        self.block_size = block_size
        self.kv: list[dict[int, tuple[int, int, str]]] = [{} for _ in groups]
        self.adapters: dict[int, str] = {-1: ""}
        """digests of those loaded, by adapter slot"""
        self.adapter: dict[int, str] = {}
        """by slot"""
        self.entries: dict[int, Entry] = {}
        self.tokens: dict[int, list[int]] = {}
        self.tables: dict[int, list[dict[int, int]]] = {}
        self.queue: deque[StepPlan] = deque()
        self.plans: list[StepPlan] = []

    def submit(self, plan: StepPlan) -> None:
        self.queue.append(plan)
        self.plans.append(plan)

    def collect(self) -> StepResult:
        plan = self.queue.popleft()
        for load in plan.adapters:
            self.adapters[load.slot] = load.adapter.digest
        for entry in plan.entries:
            self.entries[entry.slot] = entry
            self.adapter[entry.slot] = self.adapters[entry.adapter]
            self.tokens[entry.slot] = list(entry.tokens)
            self.tables[entry.slot] = [{} for _ in self.groups]
        for delta in plan.blocks:
            table = self.tables[delta.slot][delta.group]
            table.update(enumerate(delta.ids, delta.first))
        for row in range(len(plan.slots)):
            self._write(plan, row)
        outputs = [self._run(plan, row) for row in range(len(plan.slots))]
        return StepResult(plan.step, [out for out in outputs if out])

    def _place(self, slot: int, group: int, position: int) -> int:
        block = self.tables[slot][group][position // self.block_size]
        return block * self.block_size + position % self.block_size

    def _write(self, plan: StepPlan, row: int) -> None:
        slot, start, count = plan.slots[row], plan.starts[row], plan.counts[row]
        tokens = self.tokens[slot]
        assert start + count <= len(tokens), "a row computes tokens that nobody knows"
        if plan.tokens[row] != UNKNOWN:
            assert tokens[start + count - 1] == plan.tokens[row]
        for group in range(len(self.groups)):
            for position in range(start, start + count):
                written = (position, tokens[position], self._adapter(slot))
                self.kv[group][self._place(slot, group, position)] = written

    def _adapter(self, slot: int) -> str:
        now = self.adapters[self.entries[slot].adapter]
        assert now == self.adapter[slot], "an adapter was replaced while a request ran with it"
        return now

    def _run(self, plan: StepPlan, row: int) -> list[int]:
        slot, start, end = plan.slots[row], plan.starts[row], plan.starts[row] + plan.counts[row]
        tokens = self.tokens[slot]
        for g, group in enumerate(self.groups):
            first = max(0, start - group.window + 1) if group.window else 0
            for position in range(first, end):
                seen = self.kv[g][self._place(slot, g, position)]
                own = (position, tokens[position], self._adapter(slot))
                assert seen == own, "a row reads keys that are not its own"
        if not plan.samples[row]:
            return []
        assert end == len(tokens)
        tokens.append(next_token(tokens))
        return [tokens[-1]]


def submission(
    id: str, prompt: Sequence[int], max_tokens: int | None = 8, **fields: object
) -> Submission:
    sampling_names = set(Sampling.__dataclass_fields__)
    sampling = {k: v for k, v in fields.items() if k in sampling_names}
    rest = {k: v for k, v in fields.items() if k not in sampling_names}
    return Submission(id, list(prompt), Sampling(max_tokens=max_tokens, **sampling), **rest)  # type: ignore[arg-type]
