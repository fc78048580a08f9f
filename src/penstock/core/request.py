"""A request: what is asked (`Submission`, `Sampling`), and its state in service (`Request`).

Token ids only: stop strings, templates and text live above the engine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum

from penstock.errors import InvalidFieldError

MAX_LOGPROBS = 64
"""Most alternatives a request may ask for at each position."""


BACKGROUND = 2**32
"""Added to the priority of background work. It then takes what the others leave, under any
policy."""
FOREGROUND = 2**31
"""The priorities that clients may send are below."""


class FinishReason(StrEnum):
    STOP = "stop"
    """a stop id (EOS included) or, decided above the engine, a stop string"""
    LENGTH = "length"
    """max_tokens or the context is reached"""
    ABORT = "abort"
    """the client left or asked for it"""
    TIMEOUT = "timeout"
    """the request's own deadline passed"""
    ERROR = "error"


class Status(Enum):
    WAITING = 0
    """in the queue: new, or preempted"""
    HELD = 1
    """not eligible until somebody releases it (see HoldReason)"""
    RUNNING = 2
    """owns a slot and blocks"""
    FINISHED = 3


class HoldReason(StrEnum):
    PREFIX = "prefix"
    """another request is just computing the same prefix"""
    ADAPTER = "adapter"
    """all slots for adapters are in use by others"""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Resolved sampling parameters of one choice; `validate` refuses what is out of range.

    Order of application: logit_bias, bad_words and min_tokens masks; repetition, presence and
    frequency penalties; temperature; top_k; top_p; min_p; draw.
    """

    temperature: float = 1.0
    """0 is greedy"""
    top_k: int = 0
    """0 keeps all"""
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    """over prompt and output (CTRL, Keskar et al. 2019)"""
    presence_penalty: float = 0.0
    """over output"""
    frequency_penalty: float = 0.0
    """over output"""
    logit_bias: tuple[tuple[int, float], ...] = ()
    bad_words: tuple[tuple[int, ...], ...] = ()
    """id sequences that must not be completed"""
    seed: int = 0
    """64 bits; given at admission when the client sent none"""
    choice: int = 0
    """index of this choice among n"""
    logprobs: int | None = None
    """alternatives per output token; 0 gives the chosen token alone, None nothing"""
    prompt_logprobs: int | None = None
    pooling: str = ""
    """`last` or `mean`: the prompt's last hidden states as one vector, told with the first token"""
    max_tokens: int | None = None
    """None: up to the context"""
    min_tokens: int = 0
    stop_ids: tuple[int, ...] = ()
    """end the request with reason `stop`; the model's EOS ids included unless ignore_eos"""

    def validate(self, vocab_size: int) -> None:
        """Raise InvalidFieldError naming the first field that is out of range."""
        _check(0 <= self.temperature <= 100, "temperature", "between 0 and 100")
        _check(self.top_k >= 0, "top_k", "0 (off) or positive")
        _check(0 < self.top_p <= 1, "top_p", "in (0, 1]")
        _check(0 <= self.min_p <= 1, "min_p", "in [0, 1]")
        _check(0 < self.repetition_penalty <= 100, "repetition_penalty", "in (0, 100]")
        _check(-2 <= self.presence_penalty <= 2, "presence_penalty", "in [-2, 2]")
        _check(-2 <= self.frequency_penalty <= 2, "frequency_penalty", "in [-2, 2]")
        _check(-(2**63) <= self.seed < 2**64, "seed", "a 64-bit integer")
        for name in ("logprobs", "prompt_logprobs"):
            wanted = getattr(self, name)
            ok = wanted is None or 0 <= wanted <= MAX_LOGPROBS
            _check(ok, name, f"between 0 and {MAX_LOGPROBS}")
        _check(self.pooling in ("", "last", "mean"), "pooling", "last or mean")
        _check(self.max_tokens is None or self.max_tokens >= 1, "max_tokens", "at least 1")
        _check(self.min_tokens >= 0, "min_tokens", "0 or more")
        if self.max_tokens is not None:
            _check(self.min_tokens <= self.max_tokens, "min_tokens", "at most max_tokens")
        for token, bias in self.logit_bias:
            _check(0 <= token < vocab_size, "logit_bias", f"keyed by ids below {vocab_size}")
            _check(-100 <= bias <= 100, "logit_bias", "between -100 and 100")
        for word in self.bad_words:
            ok = len(word) > 0 and all(0 <= t < vocab_size for t in word)
            _check(ok, "bad_words", f"non-empty sequences of ids below {vocab_size}")
        ok = all(0 <= t < vocab_size for t in self.stop_ids)
        _check(ok, "stop_token_ids", f"ids below {vocab_size}")


def _check(ok: bool, name: str, rule: str) -> None:
    if not ok:
        raise InvalidFieldError(f"{name} must be {rule}.", param=name)


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter: what a request adds to the model's weights."""

    name: str
    path: str
    """its folder, where every process of the engines reads it"""
    digest: str
    """of its files: what KV and slots are told apart by, whatever its name"""


@dataclass(frozen=True, slots=True)
class Submission:
    """What enters the engine: one choice of one request, as plain serialisable data."""

    id: str
    prompt: list[int]
    sampling: Sampling
    group: str = ""
    """shared by the n choices of one request: siblings share the prompt's full blocks"""
    arrival_s: float = 0.0
    """when the server received it, on the host's monotonic clock"""
    priority: int = 0
    """lower is sooner (policy `priority`)"""
    deadline_s: float | None = None
    """absolute, on the same clock as arrival_s; past it the work is dropped"""
    slo_class: str = ""
    """interactive, agent or batch (policy `slo`); empty: the policy's default"""
    cache_salt: str = ""
    """only requests of the same salt share cached prefixes"""
    tenant: str = ""
    """whose share of the engine it takes (see core.fair)"""
    weight: float = 1.0
    """of the tenant"""
    session: str = ""
    """requests of one session are likely to share a prefix; a hint for routers"""
    adapter: Adapter | None = None
    output: list[int] = field(default_factory=list)
    """ids that another engine generated for it already: this one continues after them, and the
    next draw's output position is their number"""
    block_hashes: list[bytes] = field(default_factory=list)
    """names of the full blocks of prompt and output, where they are known without the ids (traces,
    simulation); empty: they are made from the ids"""

    @property
    def cache_keys(self) -> list[str]:
        """What must be equal for a prefix to be shared, beside the engine's own key."""
        return [self.cache_salt] + ([self.adapter.digest] if self.adapter is not None else [])

    @property
    def background(self) -> bool:
        return self.priority >= FOREGROUND


class Request:
    """One choice while it is served. Written by the scheduler alone.

    tokens    [prompt ............ | output ....... ] (?)      known ids; (?) = pending
    computed  [~~~~~~~~~~~~~~~~~~~~~~~~~~~~]                   KV written once the plans have run
    """

    __slots__ = (
        "blocks",
        "cached_tokens",
        "capacity",
        "commits",
        "computed",
        "deadline_s",
        "first_needed",
        "group",
        "hashes",
        "hold",
        "id",
        "in_flight",
        "key",
        "limit",
        "num_prompt",
        "order",
        "pending",
        "preemptions",
        "reads_cache",
        "sampling",
        "slot",
        "status",
        "stops",
        "submission",
        "tokens",
    )

    def __init__(self, submission: Submission, num_groups: int, limit: int) -> None:
        sampling = submission.sampling
        self.id = submission.id
        self.submission = submission
        self.sampling = sampling
        self.group = submission.group
        self.tokens: list[int] = submission.prompt + submission.output
        self.num_prompt = len(submission.prompt)
        self.limit = limit
        """most tokens, prompt included"""
        self.stops = frozenset(sampling.stop_ids)
        self.deadline_s = submission.deadline_s
        self.status = Status.WAITING
        self.hold: HoldReason | None = None
        self.order: tuple[float, ...] = ()
        """place in the queue; set by the policy"""
        self.computed = 0
        """tokens whose KV is written by the plans scheduled so far"""
        self.pending = 0
        """output tokens asked for by plans that are not applied yet"""
        self.in_flight = 0
        """plans that contain this request and are not applied yet"""
        self.slot = -1
        self.blocks: list[list[int]] = [[] for _ in range(num_groups)]
        """per group, all of the same length; DROPPED where a window has passed"""
        self.first_needed = [0] * num_groups
        """per group: index of the first block that is still held (windows free what they passed)"""
        self.capacity = 0
        """tokens that the blocks hold"""
        self.commits = 0
        """blocks from the start that the prefix index was told of"""
        self.hashes: list[bytes] = []
        """chained hashes of the full blocks of `tokens`"""
        self.key = b""
        """root of the hash chain; empty: nothing is shared"""
        self.reads_cache = False
        self.cached_tokens = 0
        """prompt tokens that came from the cache at first admission"""
        self.preemptions = 0

    @property
    def num_output(self) -> int:
        return len(self.tokens) - self.num_prompt
