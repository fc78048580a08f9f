"""Public sampling parameters, as clients write them, and their resolution for the engine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from penstock.core.request import Sampling, Thinking
from penstock.errors import ContextLengthError, InvalidFieldError
from penstock.text.structured import StructuredOutputs
from penstock.text.tokenizer import Tokenizer, read_json

_MOST_IDS = 2**31
"""no vocabulary is larger; the model's own size is checked when the request is submitted"""

MAX_CHOICES = 128
MAX_STOPS = 64
MAX_STOP_CHARS = 1024


@dataclass(frozen=True)
class SamplingParams:
    """What one request asks for. Names and meanings are vLLM's; wrong types and values raise
    InvalidFieldError naming the field.

    Ranges are those of `core.request.Sampling`; None stands for "not given".
    """

    n: int = 1
    """answers to the same prompt"""
    temperature: float = 1.0
    """0 is greedy"""
    top_p: float = 1.0
    top_k: int = 0
    """0 and -1 keep all"""
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] | None = None
    """by token id; JSON's string keys are understood"""
    bad_words: list[str] | None = None
    """texts that must not appear, at the start of a word or inside"""
    bad_words_ids: list[list[int]] | None = None
    seed: int | None = None
    """64 bits; without one the request is given a random one"""
    stop: str | list[str] | None = None
    """texts that end the answer"""
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    min_tokens: int = 0
    """neither a stop id nor a stop text ends the answer within so many tokens"""
    max_tokens: int | None = None
    """None: as many as the context holds"""
    logprobs: int | None = None
    """alternatives per output token; 0 gives the chosen token alone"""
    prompt_logprobs: int | None = None
    skip_special_tokens: bool = True
    structured_outputs: StructuredOutputs | dict[str, Any] | None = None
    """what the answer must look like"""
    thinking_token_budget: int | None = None
    """of chats: most tokens of a thinking section; then its end is forced"""

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "min_p", *_PENALTIES):
            object.__setattr__(self, name, _number(getattr(self, name), name))
        for name in ("n", "top_k", "min_tokens"):
            _integer(getattr(self, name), name)
        for name in ("seed", "max_tokens", "logprobs", "prompt_logprobs", "thinking_token_budget"):
            if getattr(self, name) is not None:
                _integer(getattr(self, name), name)
        for name in ("include_stop_str_in_output", "ignore_eos", "skip_special_tokens"):
            _require(isinstance(getattr(self, name), bool), name, "true or false")
        budget = self.thinking_token_budget
        _require(budget is None or budget >= 0, "thinking_token_budget", "0 or more")
        if self.structured_outputs is not None:
            read = StructuredOutputs.read(self.structured_outputs)
            object.__setattr__(self, "structured_outputs", read)
        _require(1 <= self.n <= MAX_CHOICES, "n", f"between 1 and {MAX_CHOICES}")
        _require(-1 <= self.top_k < _MOST_IDS, "top_k", "-1 or 0 (off) or positive")
        object.__setattr__(self, "logit_bias", _biases(self.logit_bias))
        object.__setattr__(self, "stop", _stops(self.stop))
        _id_list(self.stop_token_ids, "stop_token_ids")
        _word_list(self.bad_words)
        _require(_is_list(self.bad_words_ids), "bad_words_ids", "a list of id lists")
        for word in self.bad_words_ids or ():
            _require(bool(word), "bad_words_ids", "a list of id lists, none of them empty")
            _id_list(word, "bad_words_ids")
        self._sampling().validate(_MOST_IDS)

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return tuple(self.stop or ())

    def resolve(
        self,
        tokenizer: Tokenizer,
        eos_ids: Iterable[int],
        prompt_len: int,
        max_model_len: int,
        seed: int,
        default_max_tokens: int | None = None,
        vocab_size: int = _MOST_IDS,
        grammar: str = "",
        thinking: Thinking | None = None,
    ) -> tuple[Sampling, ...]:
        """One `Sampling` a choice.

        seed: used when the request has none.
        default_max_tokens: used, as far as the context allows, when the request sets no limit.
        vocab_size: of the model; no id may reach it.
        grammar: that the output must follow. thinking: bounds of its thinking section.
        Raises ContextLengthError when prompt and output do not fit max_model_len, and
        InvalidFieldError for what only the model's numbers show to be out of range.
        """
        room = max_model_len - prompt_len
        _check_room(prompt_len, self.max_tokens, max_model_len)
        limit = self.max_tokens if self.max_tokens is not None else default_max_tokens
        ends = tuple(eos_ids)
        stop_ids = [
            *(self.stop_token_ids or ()),
            *(() if self.ignore_eos and not grammar else ends),
        ]
        if grammar and not stop_ids:
            raise InvalidFieldError(
                "This model has no end token, so a structured answer could not end.",
                cure="Send stop_token_ids.",
                param="structured_outputs",
            )
        words = [*(self.bad_words_ids or ()), *_word_ids(self.bad_words or (), tokenizer)]
        base = replace(
            self._sampling(),
            bad_words=tuple(dict.fromkeys(tuple(word) for word in words)),
            stop_ids=tuple(dict.fromkeys(stop_ids)),
            seed=seed if self.seed is None else self.seed,
            max_tokens=room if limit is None else min(limit, room),
            grammar=grammar,
            late_stop_ids=self._late(ends) if grammar else (),
            thinking=thinking,
        )
        base.validate(vocab_size)
        return tuple(replace(base, choice=choice) for choice in range(self.n))

    def _late(self, ends: tuple[int, ...]) -> tuple[int, ...]:
        """End ids that wait until a grammar leaves nothing else."""
        asked = self.stop_token_ids or ()
        return tuple(end for end in ends if end not in asked) if self.ignore_eos else ()

    def _sampling(self) -> Sampling:
        """The part that needs neither tokenizer nor model."""
        return Sampling(
            temperature=self.temperature,
            top_k=max(0, self.top_k),
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=tuple((self.logit_bias or {}).items()),
            bad_words=tuple(tuple(word) for word in self.bad_words_ids or ()),
            seed=self.seed or 0,
            logprobs=self.logprobs,
            prompt_logprobs=self.prompt_logprobs,
            max_tokens=self.max_tokens,
            min_tokens=self.min_tokens,
            stop_ids=tuple(self.stop_token_ids or ()),
        )


_PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")


def generation_defaults(folder: Path) -> dict[str, Any]:
    """Fields of SamplingParams that the folder's generation_config.json recommends; empty without
    such a file. Raises TokenizerError when it is not valid JSON."""
    config = read_json(folder / "generation_config.json")
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    found = {name: config[name] for name in names if config.get(name) is not None}
    if config.get("max_new_tokens") is not None:
        found["max_tokens"] = config["max_new_tokens"]
    return found


def _check_room(prompt_len: int, max_tokens: int | None, max_model_len: int) -> None:
    if prompt_len >= max_model_len:
        raise ContextLengthError(
            f"The prompt has {prompt_len} tokens; the context holds {max_model_len},"
            " at least one of them for the answer.",
            cure="Shorten the prompt, or serve with a larger --max-model-len.",
            param="prompt",
        )
    if max_tokens is not None and prompt_len + max_tokens > max_model_len:
        raise ContextLengthError(
            f"The prompt has {prompt_len} tokens and max_tokens is {max_tokens};"
            f" the context holds {max_model_len}.",
            cure=f"Set max_tokens to at most {max_model_len - prompt_len}, or leave it out.",
            param="max_tokens",
        )


def _word_ids(words: Iterable[str], tokenizer: Tokenizer) -> list[list[int]]:
    """Each word as it stands at the start of a text and behind a space: other ids, mostly."""
    texts = [text for word in words for text in (word, " " + word.lstrip())]
    return [tokenizer.encode(text, add_special_tokens=False) for text in texts]


def _require(ok: bool, name: str, rule: str) -> None:
    if not ok:
        raise InvalidFieldError(f"{name} must be {rule}.", param=name)


def _integer(value: Any, name: str) -> None:
    _require(isinstance(value, int) and not isinstance(value, bool), name, "an integer")


def _number(value: Any, name: str) -> float:
    _require(isinstance(value, int | float) and not isinstance(value, bool), name, "a number")
    try:
        return float(value)
    except OverflowError:
        raise InvalidFieldError(f"{name} is too large.", param=name) from None


def _is_list(value: Any) -> bool:
    return value is None or isinstance(value, list | tuple)


def _id_list(value: Any, name: str) -> None:
    _require(_is_list(value), name, "a list of token ids")
    for token_id in value or ():
        _integer(token_id, name)


def _word_list(value: Any) -> None:
    ok = _is_list(value)
    ok = ok and all(isinstance(word, str) and word.strip() for word in value or ())
    _require(ok, "bad_words", "a list of strings that are not blank")


def _biases(value: Any) -> dict[int, float] | None:
    if value is None:
        return None
    _require(isinstance(value, dict), "logit_bias", "an object from token ids to numbers")
    found: dict[int, float] = {}
    for key, bias in value.items():
        ok = isinstance(key, str) and key.isdecimal() and len(key) < 10
        ok = ok or (isinstance(key, int) and not isinstance(key, bool))
        _require(ok, "logit_bias", "keyed by token ids")
        found[int(key)] = _number(bias, "logit_bias")
    return found


def _stops(value: Any) -> list[str] | None:
    if value is None:
        return None
    stops = [value] if isinstance(value, str) else value
    ok = _is_list(stops) and all(isinstance(stop, str) and stop for stop in stops)
    _require(ok, "stop", "a string or a list of strings, none of them empty")
    _require(len(stops) <= MAX_STOPS, "stop", f"at most {MAX_STOPS} strings")
    longest = max((len(stop) for stop in stops), default=0)
    _require(longest <= MAX_STOP_CHARS, "stop", f"of strings up to {MAX_STOP_CHARS} characters")
    return list(stops)
