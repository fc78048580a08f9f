"""Draws the loss curve of a run: python plot.py checkpoints/model.log.jsonl loss.png"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    rows = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    figure, left = plt.subplots(figsize=(6.4, 3.6), dpi=100)
    loss = [(r["tokens"] / 1e6, r["loss"]) for r in rows if "loss" in r]
    bits = [(r["tokens"] / 1e6, r["bits_per_byte"]) for r in rows if "bits_per_byte" in r]
    left.plot(*zip(*loss, strict=True), lw=0.8, color="tab:blue", label="training loss (nats)")
    left.set_xlabel("tokens, millions")
    left.set_ylabel("training loss, nats a token")
    left.set_ylim(1.5, 6.0)
    right = left.twinx()
    right.plot(*zip(*bits, strict=True), "o-", ms=3, lw=1, color="tab:red")
    right.set_ylabel("bits per byte, first 100 kB held out (dots)")
    figure.tight_layout()
    figure.savefig(sys.argv[2])


if __name__ == "__main__":
    main()
