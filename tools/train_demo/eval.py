"""Measures the demo model: exact match of its two skills, repetition and bits per byte.

    python eval.py --local ../../src/penstock/demo/model --heldout build/heldout.json
    python eval.py --url http://127.0.0.1:8000/v1

The cases are made from names, places and words that training never saw (see skills.Values);
handmade.json holds further cases written by hand, outside the patterns of training.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import skills

HERE = Path(__file__).resolve().parent
Message = dict[str, Any]
# Messages and tools in, the text and the parsed tool calls out.
Ask = Callable[[list[Message], list[dict[str, Any]] | None], tuple[str, list[dict[str, Any]]]]
SUBJECTS = (
    "a fox and a crow",
    "a little girl and a wolf",
    "an old king",
    "a brave tailor",
    "a talking horse",
    "a poor fisherman",
    "a golden bird",
    "a witch in the wood",
    "a clever mouse",
    "three brothers",
    "a mermaid",
    "a lazy boy",
    "the moon",
    "a dragon",
    "a cat and a dog",
    "a rose",
    "a miller's daughter",
    "a giant",
    "a tin soldier",
    "a frog",
    "two sisters",
    "a ship",
    "a bear",
    "a lost ring",
    "a kind old woman",
)
OPENINGS = (
    "Once upon a time",
    "There was once a king",
    "Long ago there lived a poor woodcutter",
    "A Fox",
    "One day the little girl",
    "In a small village by the sea",
    "The old woman",
    "There were once three brothers",
    "When the sun rose",
    "A Lion and a Mouse",
)


class Endpoint:
    """A model behind an OpenAI-style server, asked at temperature 0."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        with urllib.request.urlopen(self.url + "/models") as reply:
            self.model = json.load(reply)["data"][0]["id"]

    def ask(
        self, messages: list[Message], tools: list[dict[str, Any]] | None
    ) -> tuple[str, list[dict[str, Any]]]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": 160,
        }
        if tools:
            body["tools"] = tools
        request = urllib.request.Request(
            self.url + "/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request) as reply:
                message = json.load(reply)["choices"][0]["message"]
        except urllib.error.HTTPError as error:
            return f"(status {error.code}: {error.read().decode()})", []
        calls = [
            {"name": c["function"]["name"], "arguments": parsed(c["function"]["arguments"])}
            for c in message.get("tool_calls") or []
        ]
        text = message.get("content") or ""
        return text, calls or calls_in(text)


class Local:
    """A model folder, run by transformers on the CPU."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.torch = torch
        self.tok = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.model.generation_config.max_new_tokens = None

    def generate(self, prompt: str, **settings: Any) -> list[int]:
        """The new tokens after a prompt."""
        ids = self.torch.tensor([self.tok(prompt, add_special_tokens=False).input_ids])
        with self.torch.no_grad():
            out = self.model.generate(ids, attention_mask=self.torch.ones_like(ids), **settings)
        return out[0, ids.shape[1] :].tolist()

    def prompt(self, messages: list[Message], tools: list[dict[str, Any]] | None = None) -> str:
        return self.tok.apply_chat_template(
            messages, tools=tools, tokenize=False, add_generation_prompt=True
        )

    def ask(
        self, messages: list[Message], tools: list[dict[str, Any]] | None
    ) -> tuple[str, list[dict[str, Any]]]:
        ids = self.generate(
            self.prompt(messages, tools),
            do_sample=False,
            temperature=None,
            top_p=None,
            max_new_tokens=160,
        )
        text = self.tok.decode(ids, skip_special_tokens=True)
        return text, calls_in(text)

    def bits_per_byte(self, texts: list[str], length: int = 2048) -> float:
        """Bits per byte of the texts, each cut into windows of `length` tokens."""
        nats, size = 0.0, 0
        end = self.tok.convert_tokens_to_ids("<|endoftext|>")
        for text in texts:
            ids = [end, *self.tok(text, add_special_tokens=False).input_ids, end]
            for at in range(0, len(ids) - 1, length):
                part = self.torch.tensor(ids[at : at + length + 1])[None]
                with self.torch.no_grad():
                    logits = self.model(part[:, :-1]).logits
                nats += self.torch.nn.functional.cross_entropy(
                    logits[0], part[0, 1:], reduction="sum"
                ).item()
            size += len(text.encode()) + 1
        return nats / math.log(2) / size


def parsed(text: Any) -> Any:
    """JSON of a text, or None where it is none."""
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return None


def calls_in(text: str) -> list[dict[str, Any]]:
    """The tool calls that a text holds in <tool_call> tags."""
    found = [parsed(m) for m in re.findall(r"<tool_call>\s*(.*?)\s*</tool_call>", text, re.S)]
    return [c for c in found if isinstance(c, dict)]


def extraction_right(ask: Ask, messages: list[Message], record: dict[str, Any]) -> str:
    """Empty if the answer is exactly the record, else the answer."""
    text, _ = ask(messages, None)
    return "" if parsed(text.strip()) == record else text or "(empty)"


def call_right(
    ask: Ask, messages: list[Message], tools: list[dict[str, Any]], call: dict[str, Any]
) -> str:
    """Empty if the answer is exactly this one call, else the answer."""
    text, calls = ask(messages, tools)
    return "" if calls == [call] else json.dumps(calls) if calls else text or "(empty)"


def report(name: str, cases: list[tuple[str, Any, str]], show: int) -> float:
    """Prints the share of right answers, and some of the wrong ones."""
    wrong = [c for c in cases if c[2]]
    share = 1 - len(wrong) / len(cases)
    print(f"{name}: {share:.1%} exact of {len(cases)}", flush=True)
    for asked, wanted, got in wrong[:show]:
        print(f"  asked  {asked!r}\n  wanted {json.dumps(wanted)}\n  got    {got}")
    return share


def skills_test(ask: Ask, n: int, seed: int, show: int) -> None:
    """Exact match on made cases and on the cases written by hand."""
    rng = random.Random(seed)
    cases = []
    for _ in range(n):
        messages, record = skills.extraction_case(rng, held_out=True)
        cases.append((messages[-1]["content"], record, extraction_right(ask, messages, record)))
    report("extraction, held-out", cases, show)
    cases = []
    for _ in range(n):
        messages, tools, call = skills.tool_case(rng, held_out=True)
        cases.append((messages[-1]["content"], call, call_right(ask, messages, tools, call)))
    report("tool calls, held-out", cases, show)
    hand = json.loads((HERE / "handmade.json").read_text())
    cases = []
    for text, record in hand["extraction"]:
        messages = [{"role": "user", "content": text}]
        cases.append((text, record, extraction_right(ask, messages, record)))
    report("extraction, by hand", cases, show)
    cases = []
    for text, call in hand["tools"]["cases"]:
        messages = [{"role": "user", "content": text}]
        cases.append((text, call, call_right(ask, messages, hand["tools"]["tools"], call)))
    report("tool calls, by hand", cases, show)


def repeated(tokens: list[int], n: int = 8) -> list[int]:
    """The first n-gram that comes twice, or nothing."""
    seen = set()
    for i in range(len(tokens) - n + 1):
        gram = tuple(tokens[i : i + n])
        if gram in seen:
            return list(gram)
        seen.add(gram)
    return []


def stories_test(model: Local, n: int, seed: int, top_p: float) -> None:
    """Samples of 200 tokens at temperature 0.8: repeated 8-grams, and whether answers stop."""
    model.torch.manual_seed(seed)
    settings = {"do_sample": True, "temperature": 0.8, "top_p": top_p, "top_k": 0}
    bad = 0
    for i in range(n):
        prompt = "<|endoftext|>" + OPENINGS[i % len(OPENINGS)]
        ids = model.generate(prompt, min_new_tokens=200, max_new_tokens=200, **settings)
        if gram := repeated(ids):
            bad += 1
            print(f"  twice in sample {i}: {model.tok.decode(gram)!r}")
    print(f"plain stories: {bad} of {n} samples of 200 tokens hold an 8-gram twice", flush=True)
    bad, lengths, stopped = 0, [], 0
    for i in range(n):
        asked = f"Tell me a story about {SUBJECTS[i % len(SUBJECTS)]}."
        prompt = model.prompt([{"role": "user", "content": asked}])
        ids = model.generate(prompt, max_new_tokens=500, **settings)
        stopped += ids[-1] in model.model.generation_config.eos_token_id
        lengths.append(len(ids))
        if gram := repeated(ids[:200]):
            bad += 1
            print(f"  twice in answer {i}: {model.tok.decode(gram)!r}")
    print(
        f"chat stories: {bad} of {n} answers hold an 8-gram twice in their first 200 tokens; "
        f"{stopped} stop by themselves within 500 tokens, median {sorted(lengths)[n // 2]}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", help="an OpenAI-style endpoint, such as http://127.0.0.1:8000/v1")
    where.add_argument("--local", type=Path, help="a model folder, run by transformers")
    parser.add_argument("--cases", type=int, default=200, help="cases of each skill")
    parser.add_argument("--samples", type=int, default=50, help="story samples, with --local")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--heldout", type=Path, help="heldout.json of data.py, with --local")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--show", type=int, default=5, help="wrong answers to print")
    args = parser.parse_args()
    begin = time.monotonic()
    if args.url:
        skills_test(Endpoint(args.url).ask, args.cases, args.seed, args.show)
    else:
        model = Local(args.local)
        if args.cases:
            skills_test(model.ask, args.cases, args.seed, args.show)
        if args.samples:
            stories_test(model, args.samples, args.seed, args.top_p)
        if args.heldout:
            texts = json.loads(args.heldout.read_text())
            print(
                f"held-out stories: {model.bits_per_byte(texts):.3f} bits per byte "
                f"({len(texts)} documents)"
            )
    print(f"{time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
