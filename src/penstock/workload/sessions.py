"""A workload as a stream of timed requests: sessions, turns, parallel calls, shared prefixes.

Within a session the drawn prompt lengths are put in rising order, since a conversation grows: over
all sessions the lengths follow the definition exactly. A turn keeps the history before it, or (an
edited or compacted context) only the part shared with other sessions, as often as the defined
reuse asks.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from typing import NamedTuple

from penstock.errors import ConfigError
from penstock.workload import arrivals
from penstock.workload.definition import PrefixNode, Workload
from penstock.workload.draws import Draws, inverse_normal, spread_pair
from penstock.workload.lengths import draw_pair
from penstock.workload.prefixes import EndlessCache, Prompt, Segment, cut, length, name_of

PILOT_SESSIONS = 2000
"""Sessions by which the share of kept histories is set."""
TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class TimedRequest:
    """One model call. It may be sent once all of `parents` are answered and `wait_s` has passed;
    the first of a session at `at_s`."""

    id: int
    at_s: float
    """from the window's start; of a later turn: if answers take what `service` says"""
    session: int
    turn: int
    parents: tuple[int, ...]
    wait_s: float
    prompt: Prompt
    input_tokens: int
    output_tokens: int
    """what the workload will generate; no scheduler may look at it"""
    answer: int
    """name of the answer's segment, which later prompts of the session repeat"""
    slo_class: str
    region: str


class _Turn(NamedTuple):
    calls: list[tuple[int, int]]
    """(input, output) tokens of each parallel call, inputs rising"""
    wait_s: float
    luck: float
    """the history is kept if this uniform number is below the keeping share"""


class _Session(NamedTuple):
    turns: list[_Turn]
    path: Prompt
    """what the session shares with others"""
    region: str


Service = Callable[[int, int], float]
"""service(input tokens, output tokens) -> seconds until the answer is complete, as guessed."""


class Generator:
    """All requests of a workload, the same for the same seed.

    Raises ConfigError (with `param`) when the definition's rates or its prefix reuse cannot be.
    """

    def __init__(self, workload: Workload, seed: int = 0) -> None:
        if workload.arrivals.process == "trace":
            cause = "The workload replays a trace: read it with `workload.traces`."
            raise ConfigError(cause, param="arrivals.process")
        self.workload = workload
        self.seed = seed
        self.rates = arrivals.rate_curve(workload, seed)
        """sessions/s in each rate window"""
        nodes = workload.prefix.nodes
        self._nodes = {node.id: (index, node) for index, node in enumerate(nodes)}
        self._node_totals = list(accumulate(node.weight for node in nodes))
        self._region_totals = list(accumulate(region.share for region in workload.regions))
        self.keeping = self._keeping_share()
        """share of turns whose history stays as it was"""

    def requests(
        self, service: Service | None = None, sessions: int | None = None
    ) -> Iterator[TimedRequest]:
        """In order of `at_s`. service: how long an answer takes for those that wait for it;
        None: no time. sessions: only the first ones, each to its end."""
        pending: list[tuple[float, int, TimedRequest]] = []
        number = 0
        starts = arrivals.times(self.workload, self.rates, self.seed)
        for session, start in enumerate(islice(starts, sessions)):
            while pending and pending[0][0] <= start:
                yield heapq.heappop(pending)[2]
            for request in self._session_requests(session, start, number, service):
                heapq.heappush(pending, (request.at_s, request.id, request))
                number += 1
        while pending:
            yield heapq.heappop(pending)[2]

    def _session_requests(
        self, number: int, start: float, first_id: int, service: Service | None
    ) -> Iterator[TimedRequest]:
        session = self._draw(number)
        history: Prompt = session.path
        parents: tuple[int, ...] = ()
        at, call = start, first_id
        for index, turn in enumerate(session.turns):
            kept = history if turn.luck < self.keeping else session.path
            answered, ids = at, []
            for tokens, output in turn.calls:
                shared = cut(kept, tokens - 1)
                fresh = name_of(self.seed, number, call - first_id, 0)
                prompt = (*shared, Segment(fresh, tokens - length(shared)))
                wait = turn.wait_s if index else 0.0
                answer = name_of(self.seed, number, call - first_id, 1)
                yield TimedRequest(
                    call, at, number, index, parents, wait, prompt, tokens, output, answer,
                    self.workload.slo_class, session.region,
                )  # fmt: skip
                answered = max(answered, at + (service(tokens, output) if service else 0.0))
                history = (*prompt, Segment(answer, output))
                ids.append(call)
                call += 1
            following = session.turns[index + 1].wait_s if index + 1 < len(session.turns) else 0.0
            at, parents = answered + following, tuple(ids)

    def _draw(self, number: int) -> _Session:
        draws = Draws(self.seed, 4, number)
        rules, lengths = self.workload.sessions, self.workload.lengths
        common, many = spread_pair(self.seed, number)
        turns = max(1, round(rules.turns.quantile(many)))
        widths = [max(1, round(rules.fan_out.draw(draws))) for _ in range(turns)]
        base = inverse_normal(common) * math.sqrt(lengths.session_correlation)
        own = math.sqrt(1 - lengths.session_correlation)
        pairs = sorted(
            draw_pair(
                lengths.input_tokens, lengths.output_tokens, lengths.correlation, draws,
                base + own * draws.normal(),
            )
            for _ in range(sum(widths))
        )  # fmt: skip
        calls = iter([(max(1, round(i)), max(1, round(o))) for i, o in pairs])
        made = []
        for width in widths:
            by_tool = draws.uniform() < rules.tool_share
            wait = (rules.tool_wait_s if by_tool else rules.think_time_s).draw(draws)
            made.append(_Turn([next(calls) for _ in range(width)], wait, draws.uniform()))
        region = self.workload.regions[draws.pick(self._region_totals)].name
        return _Session(made, self._path(draws), region)

    def _path(self, draws: Draws) -> Prompt:
        if not self._node_totals:
            return ()
        node: PrefixNode | None = self.workload.prefix.nodes[draws.pick(self._node_totals)]
        chain: list[tuple[int, PrefixNode]] = []
        while node is not None:
            chain.append(self._nodes[node.id])
            node = self._nodes[node.parent][1] if node.parent is not None else None
        segments: list[Segment] = []
        name = name_of(self.seed, -1)
        for index, piece in reversed(chain):
            name = name_of(name, index, draws.bits() % piece.copies)
            segments.append(Segment(name, piece.tokens))
        return tuple(segments)

    def _keeping_share(self) -> float:
        """How often a history must be kept for `prefix.reuse_ideal` to hold, by the first sessions
        themselves. Raises ConfigError when no share does it."""
        total, shared = 0, 0
        seen: set[int] = set()
        gains: list[tuple[float, int]] = []
        for number in range(PILOT_SESSIONS):
            session = self._draw(number)
            path = length(session.path)
            history = path
            for turn in session.turns:
                gain = 0
                for tokens, _ in turn.calls:
                    total += tokens
                    gain += max(0, min(history, tokens - 1) - path)
                    shared += min(path, tokens - 1, self._warm(session.path, seen))
                gains.append((turn.luck, gain))
                tokens, output = turn.calls[-1]
                history = tokens + output
        return self._solve(total, shared, sorted(gains))

    @staticmethod
    def _warm(path: Prompt, seen: set[int]) -> int:
        """Tokens of the shared part that an earlier call brought."""
        warm = 0
        for segment in path:
            warm += segment.tokens if segment.id in seen else 0
            seen.add(segment.id)
        return warm

    def _solve(self, total: int, shared: int, gains: list[tuple[float, int]]) -> float:
        wanted = self.workload.prefix.reuse_ideal
        most = shared + sum(gain for _, gain in gains)
        least_share, most_share = shared / total, most / total
        slack = TOLERANCE * wanted + 0.002
        if not least_share - slack <= wanted <= most_share + slack:
            cause = (
                f"is {wanted:g}; these lengths, turns and prefix nodes give between "
                f"{least_share:.3f} and {most_share:.3f}."
            )
            cure = "Set it within, or change prefix.nodes or sessions.turns."
            raise ConfigError(cause, cure=cure, param="prefix.reuse_ideal")
        reached = shared
        for luck, gain in gains:
            if reached + gain / 2 > wanted * total:
                return luck
            reached += gain
        return 1.0


def promised_service(workload: Workload) -> Service:
    """How long answers may take by the SLO: time to first token and time per token, or to the last
    token; 0 where nothing is promised."""

    def strictest(metric: str) -> float:
        return min((c.limit_s for c in workload.slo if c.metric == metric), default=0.0)

    ttft, tpot, ttlt = (strictest(name) for name in ("ttft_s", "tpot_s", "ttlt_s"))
    if ttft or tpot:
        return lambda _, output_tokens: ttft + tpot * (output_tokens - 1)
    return lambda *_: ttlt


def stretch(
    requests: Iterator[TimedRequest], start_s: float, duration_s: float
) -> Iterator[TimedRequest]:
    """The requests of a stretch of time, times counted from its begin. Of a session that began
    before, nothing is left; of one that goes on after it, the turns that would come then are."""
    kept: set[int] = set()
    for request in requests:
        if request.at_s >= start_s + duration_s:
            return
        if request.at_s >= start_s and kept.issuperset(request.parents):
            kept.add(request.id)
            yield replace(request, at_s=request.at_s - start_s)


def merge(*streams: Iterator[TimedRequest]) -> Iterator[TimedRequest]:
    """Several workloads at once, in order of time; ids and sessions stay apart by interleaving."""
    count = len(streams)

    def apart(place: int, stream: Iterator[TimedRequest]) -> Iterator[TimedRequest]:
        for request in stream:
            yield replace(
                request,
                id=request.id * count + place,
                session=request.session * count + place,
                parents=tuple(parent * count + place for parent in request.parents),
            )

    marked = (apart(place, stream) for place, stream in enumerate(streams))
    return heapq.merge(*marked, key=lambda r: (r.at_s, r.id))


def ideal_reuse(requests: Iterator[TimedRequest]) -> float:
    """Share of the input tokens that an endless cache of prompts and answers would hold, if every
    answer were complete before the next request; the last token of a prompt is always computed."""
    cache = EndlessCache()
    total = cached = 0
    for request in requests:
        total += request.input_tokens
        cached += min(cache.matched(request.prompt), request.input_tokens - 1)
        cache.add((*request.prompt, Segment(request.answer, request.output_tokens)))
    return cached / total if total else 0.0
