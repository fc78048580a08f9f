"""What our formats and llama.cpp's do to a model's next-token distributions, on one text.

    python -m benchmarks.quality --text held_out.txt [--model demo] [--max-tokens 50000]

The reference is the unquantized model in float32. `Q4_0` and `Q8_0` are llama.cpp's definitions,
simulated in float32: groups of 32 with a float16 scale, rounded to nearest, for activations too
(Q8_0). Q4_0 stands on the same layers as our int4: the table, which is embedding and head, is int8
in both. All run with float32 activations between layers, so that only the formats differ;
`bfloat16` is the unquantized model in that dtype. After ± stands twice the standard error.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from benchmarks.harness import RESULTS, verdict
from penstock.config import Config, ModelConfig
from penstock.engine.hub import model_folder
from penstock.engine.weights import load_model
from penstock.evals.divergence import compare
from penstock.evals.reader import Reader
from penstock.evals.report import figures, total
from penstock.evals.storage import storage
from penstock.evals.windows import Window, cut
from penstock.quant.base import LinearFormat
from penstock.quant.int4 import Int4
from penstock.quant.int8 import Int8, Int8Matrix
from penstock.quant.plain import PLAIN
from penstock.registry import ATTENTION_BACKENDS
from penstock.report.machine import command_line, machine_info
from penstock.report.tables import table
from penstock.text.tokenizer import Tokenizer

GROUP = 32
CPU = torch.device("cpu")
Rounding = Callable[[Tensor], Tensor]
"""float32 [rows, size] -> what a format makes of it"""


def q8_0(x: Tensor) -> Tensor:
    """Groups of 32, scale = max / 127, float16."""
    groups = x.float().reshape(-1, GROUP)
    scale = groups.abs().amax(1, keepdim=True) / 127
    q = (groups / scale).nan_to_num(0.0).round()
    return (q * scale.half().float()).view(x.shape)


def q4_0(x: Tensor) -> Tensor:
    """Groups of 32, the greatest weight at -8 of -8 .. 7, scale in float16."""
    groups = x.float().reshape(-1, GROUP)
    scale = groups.gather(1, groups.abs().argmax(1, keepdim=True)) / -8
    q = (groups / scale).nan_to_num(0.0).add(8.5).floor().clamp(0, 15) - 8
    return (q * scale.half().float()).view(x.shape)


class Simulated:
    """A Matrix, a Table and a Place: rounded weights kept in float32."""

    def __init__(
        self, rows: int, size: int, bits: float, weights: Rounding, activations: Rounding
    ) -> None:
        if size % GROUP:
            raise SystemExit(f"llama.cpp cannot put rows of {size} weights into groups of {GROUP}")
        self.values = torch.empty(rows, size)
        self.shape = (rows, size)
        self.nbytes = int(rows * size * bits / 8)
        self._bits, self._weights, self._activations = bits, weights, activations

    def place(self, first: int, count: int) -> Simulated:
        part = Simulated(count, self.shape[1], self._bits, self._weights, self._activations)
        part.values = self.values[first : first + count]
        return part

    def copy_(self, tensor: Tensor, /) -> None:
        self.values.copy_(self._weights(tensor))

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return linear(self._activations(x), self.values, bias)

    def rows(self, ids: Tensor) -> Tensor:
        return self.values[ids]

    def logits(self, hidden: Tensor) -> Tensor:
        return self(hidden, None)


class Peer:
    """A LinearFormat of llama.cpp's, with its table in Q8_0 or in our int8."""

    group_size = 32

    def __init__(self, name: str, bits: float, weights: Rounding, own_table: bool) -> None:
        self.name = name
        self._bits, self._weights, self._own_table = bits, weights, own_table

    def matrix(
        self,
        rows: int,
        size: int,
        dtype: torch.dtype,
        device: torch.device,
        outliers: bool = False,
    ) -> Simulated:
        return Simulated(rows, size, self._bits, self._weights, q8_0)

    def table(
        self, rows: int, size: int, dtype: torch.dtype, device: torch.device
    ) -> Simulated | Int8Matrix:
        if self._own_table:
            return Int8().table(rows, size, dtype, device)
        return Simulated(rows, size, 8.5, q8_0, q8_0)


FORMATS: dict[str, tuple[LinearFormat, torch.dtype]] = {
    "bfloat16": (PLAIN, torch.bfloat16),
    "int8": (Int8(), torch.float32),
    "int8, bfloat16": (Int8(), torch.bfloat16),
    "Q8_0": (Peer("Q8_0", 8.5, q8_0, own_table=False), torch.float32),
    "int4": (Int4(), torch.float32),
    "int4, bfloat16": (Int4(), torch.bfloat16),
    "Q4_0": (Peer("Q4_0", 4.5, q4_0, own_table=True), torch.float32),
}


def reader(folder: Path, linear_format: LinearFormat, dtype: torch.dtype, context: int) -> Reader:
    backend = ATTENTION_BACKENDS.load("torch")()
    model = load_model(folder, dtype, CPU, backend, linear_format)
    return Reader(model, backend, dtype, CPU, context)


def measure(
    name: str, folder: Path, reference: Reader, windows: list[Window], context: int
) -> dict[str, Any]:
    """Figures of one format."""
    candidate = reader(folder, *FORMATS[name], context)
    scores = compare(reference, candidate, windows)
    found, _ = figures(scores, lambda token: 1)
    kl_error = 2 * float(scores.kl.std()) / math.sqrt(len(scores.kl))
    share = found.agreement
    return {
        "bits_per_weight": total(storage(candidate.model.targets())).bits_per_weight,
        "kl_mean": found.kl_mean,
        "kl_mean_2se": kl_error,
        "kl_p99": found.kl_p99,
        "agreement": share,
        "regret": found.regret,
        "agreement_2se": 2 * math.sqrt(share * (1 - share) / found.tokens),
        "perplexity": found.candidate_perplexity,
        "reference_perplexity": found.reference_perplexity,
        "tokens": found.tokens,
    }


def show(results: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console

    rows = [
        [
            name,
            f"{r['bits_per_weight']:.2f}",
            f"{r['kl_mean']:.6f} ± {r['kl_mean_2se']:.6f}",
            f"{r['kl_p99']:.5f}",
            f"{r['agreement']:.2%} ± {r['agreement_2se']:.2%}",
            f"{r['regret']:.6f}",
            f"{r['perplexity']:.3f}",
        ]
        for name, r in results.items()
    ]
    columns = ("format", "bits", "KL mean", "KL p99", "same top", "regret", "perplexity")
    Console().print(table("Against float32", columns, rows))
    int8, ratio = results["int8"], results["int4"]["kl_mean"] / results["Q4_0"]["kl_mean"]
    agreement = 100 * int8["agreement"]
    print(verdict("int8: same top token, %", agreement, ">= 99", agreement >= 99))
    print(verdict("int4: KL / KL of Q4_0", ratio, "<= 1.1", ratio <= 1.1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, required=True, help="text the model has not seen")
    parser.add_argument("--model", default="demo", help="as in penstock eval")
    parser.add_argument("--max-tokens", type=int, default=50_000)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-save", action="store_true", help="write no result file")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    folder = model_folder(Config(ModelConfig(model=given.model)))
    text = given.text.read_text(encoding="utf-8")
    ids = Tokenizer.load(folder).encode(text, add_special_tokens=False)[: given.max_tokens]
    windows = list(cut(ids, given.context, given.context))
    reference = reader(folder, PLAIN, torch.float32, given.context)
    results = {name: measure(name, folder, reference, windows, given.context) for name in FORMATS}
    show(results)
    if not given.no_save:
        RESULTS.mkdir(exist_ok=True)
        data = {
            "benchmark": "quality",
            "command": "python -m benchmarks.quality " + command_line().partition(" ")[2],
            "machine": machine_info(),
            "results": results,
        }
        (RESULTS / "quality.json").write_text(json.dumps(data, indent=2) + "\n")


if __name__ == "__main__":
    main()
