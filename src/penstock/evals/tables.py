"""A report of `penstock eval` for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType

from penstock.evals.report import Figures, Report, total
from penstock.evals.storage import Storage
from penstock.report.tables import number, table


def render(report: Report) -> Group:
    """Quality by context length, storage by kind of layer, the gate."""
    model, machine = report.setting["config"]["model"], report.setting["machine"]
    options = report.setting["options"]
    head = (
        f"{model['model']}: --quantization {model['quantization']}, dtype {model['dtype']}, against"
        f" {options['reference_dtype']}; windows of {options['context']} tokens of"
        f" {options['text']}; {machine['cpu']}, {machine['date']}"
    )
    parts: list[RenderableType] = [head, _quality(report), _storage(report)]
    parts += [f"FAILED: {failure}" for failure in report.failures]
    if not report.failures and (report.max_kl, report.min_agreement) != (None, None):
        parts.append("passed: all bounds hold")
    return Group(*parts)


def _quality(report: Report) -> RenderableType:
    rows = {**report.buckets, "all": report.total}
    kl = ("tokens seen", "scored", "KL mean", "median", "p99", "same top", "regret")
    perplexity = ("tokens seen", "perplexity", "reference", "bits/byte", "reference")
    return Group(
        table("KL divergence, nats; other favourites", kl, [_kl(*row) for row in rows.items()]),
        table("Perplexity", perplexity, [_perplexity(*row) for row in rows.items()]),
    )


def _kl(name: str, part: Figures) -> list[str]:
    return [
        name,
        str(part.tokens),
        number(part.kl_mean, 5),
        number(part.kl_median, 5),
        number(part.kl_p99, 5),
        number(100 * part.agreement, 2) + " %",
        number(part.regret, 6),
    ]


def _perplexity(name: str, part: Figures) -> list[str]:
    return [
        name,
        number(part.candidate_perplexity, 3),
        number(part.reference_perplexity, 3),
        number(part.candidate_bits_per_byte, 4),
        number(part.reference_bits_per_byte, 4),
    ]


def _storage(report: Report) -> RenderableType:
    def cells(part: Storage) -> list[str]:
        return [number(part.bytes / 2**20, 2), number(part.bits_per_weight, 2)]

    ours, theirs = report.candidate_storage, report.reference_storage
    ours, theirs = {**ours, "all": total(ours)}, {**theirs, "all": total(theirs)}
    rows = [
        [_short(name), number(part.weights, 0), *cells(part), *cells(theirs[name])]
        for name, part in ours.items()
    ]
    columns = ("weights", "number", "MiB", "bits", "ref. MiB", "bits")
    return table("Storage", columns, rows)


def _short(name: str) -> str:
    """A checkpoint name without what all of them share."""
    return name.removeprefix("model.").removeprefix("layers.").removesuffix(".weight")
