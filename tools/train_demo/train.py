"""Trains the demo model on two CPU cores within a time budget.

    python train.py --data build --minutes 65 --out model --work checkpoints

Muon for the matrices, AdamW for the rest; the learning rate warms up, stays, and falls to zero
over the last part of the time. A run that was stopped goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from export import export_model, exported_weights
from model import Qwen3, Shape
from tokenizers import Tokenizer
from torch import Tensor


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix updates are made nearly orthogonal by a Newton-Schulz iteration."""

    def __init__(self, params: list[Tensor], lr: float, momentum: float, decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                by_shape.setdefault(p.shape, []).append(p)
            for shape, params in by_shape.items():
                updates = []
                for p in params:
                    m = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    m.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(m, group["momentum"]))
                scale = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for p, u in zip(params, orthogonal(torch.stack(updates)), strict=True):
                    p.mul_(1 - group["lr"] * group["decay"]).add_(u, alpha=-scale)


def orthogonal(g: Tensor, steps: int = 5) -> Tensor:
    """The nearest matrices with singular values near 1, for a stack of matrices, in bfloat16."""
    x = g.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT.contiguous()
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-7).bfloat16()
    a, b, c = 3.4445, -4.7750, 2.0315
    for _ in range(steps):
        s = x @ x.mT
        x = a * x + (b * s + c * (s @ s)) @ x
    return (x.mT if tall else x).float()


@dataclass
class Batch:
    """One step's tensors."""

    ids: Tensor
    targets: Tensor
    weights: Tensor
    mask: Tensor


class Rows:
    """Endless batches from a packed file, in a new order each time round."""

    def __init__(self, path: Path, batch: int, seed: int) -> None:
        data = np.load(path)
        self.ids, self.weights, self.segments = (data[k] for k in ("ids", "weights", "segments"))
        self.batch, self.rng = batch, np.random.default_rng(seed)
        self.used, self.rounds = 0, 0
        self.order = self.orders()

    def orders(self) -> Iterator[np.ndarray]:
        while True:
            order = self.rng.permutation(len(self.ids))
            for at in range(0, len(order) - self.batch + 1, self.batch):
                self.used += self.batch
                yield order[at : at + self.batch]
            self.rounds += 1

    def next(self) -> Batch:
        return make_batch(
            *(
                x[i]
                for i in [np.sort(next(self.order))]
                for x in (self.ids, self.weights, self.segments)
            )
        )


def make_batch(ids: np.ndarray, weights: np.ndarray, segments: np.ndarray) -> Batch:
    """Shifts the targets and makes the mask that keeps the samples of a row apart."""
    x = torch.from_numpy(ids.astype(np.int64))
    seg = torch.from_numpy(segments.astype(np.int64))
    w = torch.from_numpy(weights.astype(np.float32) / 10)
    targets, shifted = torch.roll(x, -1, 1), torch.roll(w, -1, 1)
    shifted[:, :-1] *= seg[:, 1:] == seg[:, :-1]
    shifted[:, -1] = 0
    t = x.shape[1]
    seen = (seg[:, :, None] == seg[:, None, :]) & torch.ones(t, t, dtype=torch.bool).tril()
    mask = torch.zeros(seen.shape, dtype=torch.bfloat16).masked_fill_(~seen, -math.inf)
    return Batch(x, targets, shifted, mask[:, None])


def rate(part: float, step: int, decay_from: float, warm: int = 150) -> float:
    """The share of the full learning rate after `part` of the time."""
    fall = (1 - part) / (1 - decay_from)
    return max(0.0, min(1.0, (step + 1) / warm, fall))


@torch.no_grad()
def held_out_bits(model: Qwen3, tok: Tokenizer, texts: list[str], limit: int) -> float:
    """Bits per byte of held-out documents in windows of the context's length."""
    nats, size, length = 0.0, 0, model.s.max_position_embeddings
    for text in texts:
        ids = [0, *tok.encode(text, add_special_tokens=False).ids, 0]
        for at in range(0, len(ids) - 1, length):
            part = torch.tensor(ids[at : at + length + 1])[None]
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(part[:, :-1]).float()
            nats += torch.nn.functional.cross_entropy(
                logits[0], part[0, 1:], reduction="sum"
            ).item()
        size += len(text.encode()) + 1
        if size > limit:
            break
    return nats / math.log(2) / size


class Run:
    """A training run: model, optimizers, data, clock and checkpoint."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        torch.manual_seed(args.seed)
        self.model = Qwen3(Shape())
        named = list(self.model.named_parameters())
        matrices = [p for n, p in named if p.ndim == 2 and "embed" not in n]
        others = [p for n, p in named if p.ndim != 2 or "embed" in n]
        self.muon = Muon(matrices, args.muon_lr, 0.95, 0.05)
        self.adam = torch.optim.AdamW(others, args.adam_lr, betas=(0.9, 0.95), weight_decay=0.0)
        self.step, self.tokens, self.elapsed = 0, 0, 0.0
        self.tok = Tokenizer.from_file(str(args.data / "tokenizer.json"))
        self.texts = json.loads((args.data / "heldout.json").read_text())
        self.checkpoint = args.work / "model.pt"
        args.work.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.exists():
            self.load()
        elif args.start:
            self.model.load_state_dict(exported_weights(args.start))
        seed = args.seed + self.step
        self.short = Rows(args.data / "short.npz", args.batch, seed)
        self.long = Rows(args.data / "long.npz", max(1, args.batch // 4), seed + 1)
        self.choose = np.random.default_rng(seed + 2)
        self.log_file = (args.work / "model.log.jsonl").open("a")

    def load(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        self.step, self.tokens, self.elapsed = state["step"], state["tokens"], state["elapsed"]
        if self.args.restart_clock:
            self.elapsed = 0.0
        print(f"going on from step {self.step}", flush=True)

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(),
            "step": self.step,
            "tokens": self.tokens,
            "elapsed": self.elapsed,
        }
        torch.save(state, self.checkpoint.with_suffix(".tmp"))
        self.checkpoint.with_suffix(".tmp").replace(self.checkpoint)

    def log(self, **row: float) -> None:
        row = {"step": self.step, "tokens": self.tokens, "minutes": self.elapsed / 60, **row}
        line = json.dumps({k: round(v, 4) for k, v in row.items()})
        print(line, flush=True)
        self.log_file.write(line + "\n")
        self.log_file.flush()

    def train(self) -> None:
        """Steps until the time is over."""
        args, total = self.args, self.args.minutes * 60
        loss_of = torch.compile(self.model.loss, dynamic=False)
        losses: list[float] = []
        saved = time.monotonic()
        while self.elapsed < total:
            begin = time.monotonic()
            part = self.elapsed / total
            scale = rate(part, self.step, args.decay_from)
            for opt, lr in ((self.muon, args.muon_lr), (self.adam, args.adam_lr)):
                for group in opt.param_groups:
                    group["lr"] = lr * scale
            share = 0.2 if part > args.decay_from else 0.06
            batch = (self.long if self.choose.random() < share else self.short).next()
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(batch.ids, batch.targets, batch.weights, batch.mask)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.adam.param_groups[0]["params"], 1.0)
            self.muon.step()
            self.adam.step()
            self.model.zero_grad(set_to_none=True)
            losses.append(loss.item())
            self.step += 1
            self.tokens += batch.ids.numel()
            self.elapsed += time.monotonic() - begin
            if self.step % 20 == 0:
                self.log(loss=float(np.mean(losses)), rate=scale)
                losses = []
            if time.monotonic() - saved > args.save_minutes * 60:
                self.save()
                self.log(bits_per_byte=held_out_bits(self.model, self.tok, self.texts, 100_000))
                saved = time.monotonic()
        self.save()
        print(f"rounds of the data: {self.short.rounds} + {self.short.used} rows used")

    def finish(self) -> None:
        """Exports the weights and states the held-out figure of what was exported."""
        for p in self.model.parameters():
            p.data = p.data.bfloat16().float()
        export_model(self.model, self.args.data / "tokenizer.json", self.args.out)
        self.log(final_bits_per_byte=held_out_bits(self.model, self.tok, self.texts, 10**9))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="what data.py made")
    parser.add_argument("--out", type=Path, required=True, help="folder for the exported model")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoint and log")
    parser.add_argument("--start", type=Path, help="an exported model to go on from")
    parser.add_argument("--minutes", type=float, default=65)
    parser.add_argument("--decay-from", type=float, default=0.7)
    parser.add_argument("--batch", type=int, default=16, help="rows of 512 tokens in a step")
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=0.004)
    parser.add_argument("--save-minutes", type=float, default=4)
    parser.add_argument(
        "--restart-clock", action="store_true", help="a new budget for a checkpoint"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run = Run(args)
    print(f"{sum(p.numel() for p in run.model.parameters()):,} parameters", flush=True)
    run.train()
    run.finish()


if __name__ == "__main__":
    main()
