"""The error tree: every failure a user can cause or meet, with one stable code each.

    PenstockError
    ├── ConfigError               a flag, a file or an environment variable is wrong
    │   └── UnsupportedError      the combination, hardware or feature is not supported
    ├── RequestError              the request is at fault; sending it again cannot help
    │   ├── InvalidFieldError     one field has a wrong type or value
    │   ├── UnsupportedFieldError a field that could change the answer and is not supported
    │   ├── ContextLengthError    prompt and output do not fit the context or the KV cache
    │   ├── GrammarError          a schema, regex or grammar is wrong, or not supported
    │   ├── GrammarLimitError     it takes more than the limits allow
    │   ├── TemplateError         the chat template refused the messages
    │   ├── ModelNotFoundError    no such model is served here
    │   ├── NotFoundError         no such file, batch or response (of this key)
    │   ├── NotEnabledError       the server was started without what this needs
    │   ├── BodyTooLargeError     the request's body is over the limit
    │   └── AuthError             missing or wrong API key
    ├── UnavailableError          not now; sending it again later can help
    │   ├── QueueFullError        the bounded queue is full
    │   ├── SloMissError          its promise is predicted to be missed
    │   ├── RateLimitError        the key has used up one of its limits
    │   ├── DrainingError         the server is shutting down
    │   ├── CanaryError           golden prompts came out with other tokens
    │   ├── EngineStuckError      no forward progress within the limit
    │   └── EngineDeadError       the engine process ended
    ├── DeadlineError             the request's own deadline passed
    ├── CheckpointError           a checkpoint file is missing, truncated or contradictory
    │   ├── UnknownArchitectureError
    │   └── TokenizerError
    └── EngineError               a step failed; the fault is ours

Nothing here knows HTTP: `web` maps codes to status numbers. Errors cross process borders as plain
dicts (`to_dict`, `from_dict`).
"""

from __future__ import annotations

from typing import Any, ClassVar


class PenstockError(Exception):
    """Base of all errors. `message` says the cause, `cure` what to do about it (may be empty)."""

    code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        cure: str = "",
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure
        self.param = param
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.message} {self.cure}".rstrip()

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` turns back into an error of the same class."""
        return {
            "code": self.code,
            "message": self.message,
            "cure": self.cure,
            "param": self.param,
            "retry_after_s": self.retry_after_s,
        }


class ConfigError(PenstockError):
    code = "config_error"


class UnsupportedError(ConfigError):
    code = "unsupported"


class RequestError(PenstockError):
    code = "invalid_request"


class InvalidFieldError(RequestError):
    code = "invalid_field"


class UnsupportedFieldError(RequestError):
    code = "unsupported_field"


class ContextLengthError(RequestError):
    code = "context_length_exceeded"


class GrammarError(RequestError):
    code = "invalid_grammar"


class GrammarLimitError(RequestError):
    code = "grammar_too_complex"


class TemplateError(RequestError):
    code = "template_error"


class ModelNotFoundError(RequestError):
    code = "model_not_found"


class NotFoundError(RequestError):
    code = "not_found"


class NotEnabledError(RequestError):
    code = "not_enabled"


class BodyTooLargeError(RequestError):
    code = "body_too_large"


class AuthError(RequestError):
    code = "invalid_api_key"


class UnavailableError(PenstockError):
    code = "unavailable"


class QueueFullError(UnavailableError):
    code = "queue_full"


class SloMissError(UnavailableError):
    code = "slo_miss"


class RateLimitError(UnavailableError):
    code = "rate_limit_exceeded"


class DrainingError(UnavailableError):
    code = "draining"


class CanaryError(UnavailableError):
    code = "canary_failed"


class EngineStuckError(UnavailableError):
    code = "engine_stuck"


class EngineDeadError(UnavailableError):
    code = "engine_dead"


class DeadlineError(PenstockError):
    code = "deadline_exceeded"


class CheckpointError(PenstockError):
    code = "checkpoint_error"


class UnknownArchitectureError(CheckpointError):
    code = "unknown_architecture"


class TokenizerError(CheckpointError):
    code = "tokenizer_error"


class EngineError(PenstockError):
    code = "engine_error"


def _by_code(cls: type[PenstockError]) -> dict[str, type[PenstockError]]:
    found = {cls.code: cls}
    for sub in cls.__subclasses__():
        found.update(_by_code(sub))
    return found


ERRORS: dict[str, type[PenstockError]] = _by_code(PenstockError)


def from_dict(data: dict[str, Any]) -> PenstockError:
    """The error that `PenstockError.to_dict` described; an unknown code gives the base class."""
    cls = ERRORS.get(data["code"], PenstockError)
    return cls(
        data["message"],
        cure=data.get("cure", ""),
        param=data.get("param"),
        retry_after_s=data.get("retry_after_s"),
    )
