"""The options of `penstock eval`."""

from __future__ import annotations

from dataclasses import MISSING, dataclass

from penstock.config.option import option


@dataclass(frozen=True, slots=True)
class EvalOptions:
    text: str = option(MISSING, "File of UTF-8 text that the model did not learn from")
    reference_dtype: str = option(
        "float32",
        "Number type of the unquantized reference",
        choices=("float32", "bfloat16", "float16"),
    )
    context: int = option(512, "Length of a window, each one computed on its own", unit="tokens")
    stride: int | None = option(
        None,
        "Distance of windows; in all but the first, only the last tokens of this count are scored",
        unit="tokens",
        automatic="that of --context: each token is computed once",
    )
    max_tokens: int | None = option(
        None, "Score the beginning of the text alone", unit="tokens", automatic="all of it"
    )
    max_kl: float | None = option(
        None, "Fail (exit code 1) above this mean KL divergence", unit="nats", automatic="no bound"
    )
    min_agreement: float | None = option(
        None,
        "Fail (exit code 1) below this share of tokens, 0 to 1, where both prefer the same one",
        automatic="no bound",
    )
    json: str | None = option(None, "File for the report as JSON", automatic="none is written")
