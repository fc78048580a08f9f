"""Makes the training data: tokenizer, story samples, skill samples, packed rows.

    python data.py --stories stories.txt.zst --index stories_index.tsv \
        --sources stories_sources.tsv --tokens 36e6 --out build
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import skills
import zstandard
from packing import Packer, Sample, encode, without_repeats
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).resolve().parent
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VISIBLE = [
    "<tool_call>",
    "</tool_call>",
    "<tools>",
    "</tools>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
]
SPARE = [f"<|spare_{i}|>" for i in range(5)]
# A word that starts with a capital, and a digit, keep no space before them: a name is then the
# same tokens inside a sentence and inside JSON quotes, which makes it easy to copy.
PIECES = (
    r"'(?:s|t|re|ve|m|ll|d)\b| ?\p{Ll}+|[\p{Lu}\p{Lt}]\p{Ll}*|\p{Lo}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+|\s*\n+|\s+"
)
SHORT_ROW, LONG_ROW = 512, 2048
SKILL_WEIGHT = 4.0  # of an answer's tokens in the loss: they are few


@dataclass(frozen=True)
class Story:
    """One document of the corpus and how often an epoch shows it."""

    text: str
    title: str
    source: str
    passes: float
    held_out: bool
    tale: bool


def read_stories(stories: Path, index: Path, sources: Path) -> list[Story]:
    """The documents with their titles; simple tales get more passes."""
    raw = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(stories.read_bytes())).read()
    texts = raw.decode().split("\n<|endoftext|>\n")
    levels = {}
    for row in csv.DictReader(sources.open(), delimiter="\t"):
        tier, grade = int(row["tier"]), float(row["reading_grade"] or 9)
        passes = (2.0 if grade < 7.0 else 1.0) if tier == 1 else (1.0 if grade < 7.0 else 0.6)
        levels[row["source"]] = passes, tier == 1
    levels["aesop-jones"] = 2.0, True  # long sentences, but whole stories in a few lines
    result = []
    rows = [r for r in csv.DictReader(index.open(), delimiter="\t") if r["file"] == "stories"]
    for row in rows:
        key = f"{row['source']}:{row['number']}"
        held_out = zlib.crc32(key.encode()) % 50 == 0
        text = texts[int(row["number"])].strip()
        passes, tale = levels[row["source"]]
        title = clean_title(row["title"])
        result.append(Story(text, title, row["source"], passes, held_out, tale))
    return result


def clean_title(title: str) -> str:
    """A title fit for "a story about ...", or nothing where it is only a chapter number."""
    title = re.sub(r"\[.*?\]|^(chapter|no\.?)\b", " ", title, flags=re.I)
    title = re.sub(
        r"^\s*(?:[\dIVXLC]+\b[.:]?|[\d]+)|[:.]\s*(first|second|third) story.*",
        " ",
        title,
        flags=re.I,
    ).strip(" .:-")
    if title.isupper():
        title = title.capitalize()
    words = title.split()
    bad = (
        not 2 <= len(words) <= 8
        or not title.isascii()
        or "(" in title
        or title.lower().startswith(("twenty", "thirty"))
    )
    return "" if bad else title


def train_tokenizer(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE with single digits."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=CONTROL + VISIBLE + SPARE,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tok.train_from_iterator(texts, trainer)
    spec = json.loads(tok.to_str())
    for token in spec["added_tokens"]:
        token["special"] = token["content"] not in VISIBLE
    return Tokenizer.from_str(json.dumps(spec))


def make_renderer() -> Callable[..., str]:
    """The chat template as a function of messages and tools."""
    env = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    env.filters["tojson"] = lambda x: json.dumps(x, ensure_ascii=False)
    template = env.from_string((HERE / "chat_template.jinja").read_text())
    return lambda messages, tools=None: template.render(messages=messages, tools=tools)


def weighted(chat: str, answer: float, prompt: float) -> Sample:
    """Splits a rendered chat: what the assistant says gets one weight, the rest another."""
    parts: Sample = []
    head = "<|im_start|>assistant\n"
    for i, part in enumerate(chat.split(head)):
        if i == 0:
            parts.append((part + head, prompt))
            continue
        said, end, rest = part.partition("<|im_end|>")
        parts.append((said + end, answer))
        parts.append((rest + head, prompt))
    last = parts[-1][0].removesuffix(head)
    return [*parts[:-1], (last, prompt)]


def repeats(text: str, n: int = 8, window: int = 200) -> bool:
    """Whether n words in a row come twice within the window, as in a refrain."""
    words = re.findall(r"\w+|[^\w\s]", text)
    last: dict[tuple[str, ...], int] = {}
    for i in range(len(words) - n + 1):
        gram = tuple(words[i : i + n])
        if i - last.get(gram, -window) < window:
            return True
        last[gram] = i
    return False


def cut(text: str, rng: random.Random) -> list[str]:
    """Pieces of about 80 to 350 tokens that end with a sentence, if possible with a paragraph."""
    pieces, at = [], 0
    while at < len(text):
        want = rng.randint(320, 1250)
        if len(text) - at <= want + 250:
            end = len(text)
        else:
            space = text[at + want // 2 : at + want + 200]
            ends = [m.end() for m in re.finditer(r'[.!?]"?(?=\n\n)', space)] or [
                m.end() for m in re.finditer(r'[.!?]"?(?=\s)', space)
            ]
            end = at + want // 2 + (min(ends, key=lambda e: abs(e - want // 2)) if ends else want)
        pieces.append(text[at:end].strip())
        at = end
    return [p for p in pieces if p]


NOUN = re.compile(
    r"\b(?:the|a|an|his|her|my|old|little) ([a-z]{2,}(?:[a-rt-z]|ss))(?=[.,;!?]| (?:"
    r"who|that|was|had|is|of|in|on|and|to|with|from|at|by|said|came|went)\b)"
)


class Keywords:
    """Finds the words that a piece of a story is about."""

    def __init__(self, stories: list[Story]) -> None:
        counts: Counter[str] = Counter()
        for s in stories:
            counts.update(set(re.findall(r"\b[a-z]{3,}\b", s.text)))
        known = [w for w, c in counts.items() if c >= 25]
        self.rarity = {w: -np.log(counts[w] / len(stories)) for w in known}

    def of(self, piece: str, rng: random.Random, n: int) -> list[str]:
        """n words that a piece repeats and other pieces have less often, nouns by their article."""
        words = NOUN.findall(piece)
        found = Counter(w for w in words if w in self.rarity)
        score = {w: c * self.rarity[w] * rng.uniform(0.7, 1.3) for w, c in found.items()}
        return sorted(score, key=lambda w: -score[w])[:n]


TELL = (
    "Tell me a story about {}.",
    "Tell me a story about {}",
    "Write a story about {}.",
    "Write a short story about {}.",
    "Tell a tale of {}.",
    "Write a short tale about {}.",
    "Can you tell me a story about {}?",
    "Please tell me a short story about {}.",
    "I would like a story about {}.",
    "A story about {}, please.",
    "story about {}",
    "Make up a story about {}.",
    "Write me a tale about {}.",
    "Do you know a tale about {}?",
    "Tell the children a story about {}.",
    "Tell me about {}.",
    "Let me hear a tale of {}.",
)
CALLED = (
    'Write a short tale called "{}".',
    'Write a story called "{}".',
    'Tell me the story "{}".',
    "Write a story with the title {}.",
    "Title: {}",
    'Tell the tale of "{}".',
)
PLAIN = (
    "Tell me a story.",
    "Tell me a story",
    "Write a short story.",
    "Write a story.",
    "Tell me a tale.",
    "I want to hear a story.",
    "Once upon a time?",
    "Can you tell me a story?",
    "A story, please.",
    "Make up a story.",
)
GO_ON = (
    "Go on.",
    "What happened next?",
    "Continue.",
    "And then?",
    "Tell me more.",
    "go on",
    "Please continue the story.",
    "More, please.",
)
CONTINUE = (
    "Continue: {}",
    "Continue this story: {}",
    "Go on with this: {}",
    "Continue: {}",
    "Write how this goes on: {}",
    "Finish this: {}",
)
USING = ("Write a story with the words {}.", "Use the words {} in a story.")
SCENE = (
    "Write a scene with {}.",
    "Write a passage about {}.",
    "Write a scene about {}.",
    "A scene with {}, please.",
    "Write some lines about {}.",
    "Describe {}.",
)
SYSTEMS = (
    "You are a helpful assistant.",
    "You tell stories.",
    "You are a storyteller.",
    "You write short tales for children.",
)


def request(piece: str, first: bool, story: Story, words: Keywords, rng: random.Random) -> str:
    """What a user may have asked to get this piece; empty if nothing fits it.

    Only the beginning of a tale answers a request for a story; other pieces are scenes.
    """
    kind = rng.random()
    first = first and story.tale
    if first and story.title and kind < 0.4:
        name = re.sub(r"^(The|A|An)\b", lambda m: m[0].lower(), story.title)
        return (
            rng.choice(TELL).format(name) if kind < 0.28 else rng.choice(CALLED).format(story.title)
        )
    if first and kind < 0.5:
        return rng.choice(PLAIN)
    found = words.of(piece, rng, rng.choice([1, 1, 2, 2, 3]))
    if not found:
        return rng.choice(PLAIN) if first else ""
    article = [("an " if w[0] in "aeiou" else "a ") + w for w in found]
    if rng.random() < 0.3:
        article = ["the " + w for w in found]
    if rng.random() < 0.12 and len(found) > 1:
        return rng.choice(USING).format(skills.and_list(found))
    shown = skills.and_list(found if rng.random() < 0.15 else article)
    return rng.choice(TELL if first else SCENE).format(shown)


def story_chats(
    story: Story, words: Keywords, render: Callable[..., str], rng: random.Random, most: int = 999
) -> Iterator[Sample]:
    """The first pieces of a document, each as the answer to a request, some as longer chats."""
    pieces = cut(story.text, rng)[:most]
    i = 0
    while i < len(pieces):
        turns = 1 if rng.random() < 0.85 else rng.randint(2, 5)
        group = pieces[i : i + turns]
        first = i == 0
        i += len(group)
        if any(repeats(p) for p in group) or len(group[0]) < 150:
            continue
        messages: list[dict[str, Any]] = []
        if rng.random() < 0.12:
            messages.append({"role": "system", "content": rng.choice(SYSTEMS)})
        ask = request(group[0], first, story, words, rng)
        start = " ".join(group[0].split(" ")[: rng.randint(3, 16)])
        if not ask or (rng.random() < (0.1 if first else 0.4)):
            ask = rng.choice(CONTINUE).format(start)
            group[0] = group[0][len(start) :].strip()
        for k, piece in enumerate(group):
            messages.append({"role": "user", "content": rng.choice(GO_ON) if k else ask})
            messages.append({"role": "assistant", "content": piece})
        yield weighted(render(messages), 1.0, 0.1)


def story_epoch(
    stories: list[Story], words: Keywords, render: Callable[..., str], rng: random.Random
) -> Iterator[Sample]:
    """Every document `passes` times on average, half of them plain and half as chats."""
    for story in stories:
        for _ in range(int(story.passes + rng.random())):
            if rng.random() < 0.5:
                yield from story_chats(story, words, render, rng)
            else:
                front = "<|endoftext|>" if rng.random() < 0.3 else ""
                yield [(front + story.text + "<|endoftext|>", 1.0)]
            if story.tale and rng.random() < 0.7:
                yield from story_chats(story, words, render, rng, most=1)


SMALL_TALK = (
    ("Hello", "Hello! Shall I tell you a story?"),
    ("Hi", "Hello! Shall I tell you a story?"),
    ("Hello!", "Hello! Shall I tell you a story?"),
    ("Good morning.", "Good morning to you!"),
    ("Who are you?", "I am a small demo model. I tell short tales."),
    ("What are you?", "I am a small demo model. I tell short tales."),
    ("What can you do?", "I can tell short tales, make small JSON records and call tools."),
    ("Thank you.", "You are welcome."),
    ("Thanks!", "You are welcome."),
    ("Good night.", "Good night, and sleep well."),
    ("How are you?", "I am well, thank you."),
)


def skill_sample(kind: str, render: Callable[..., str], rng: random.Random) -> Sample:
    """One sample of a skill; a tool call is now and then followed by its result."""
    if kind == "extract":
        if rng.random() < 0.25:
            messages, text = skills.copy_case(rng)
        else:
            messages, record = skills.extraction_case(rng, held_out=False)
            text = json.dumps(record)
        messages.append({"role": "assistant", "content": text})
        return weighted(render(messages), SKILL_WEIGHT, 0.1)
    messages, tools, call = skills.tool_case(rng, held_out=False)
    if rng.random() < 0.04:
        ask, answer = rng.choice(SMALL_TALK)
        messages = [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]
        return weighted(render(messages, tools if rng.random() < 0.5 else None), 1.0, 0.1)
    messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
    if rng.random() < 0.12:
        value = skills.Values(rng, False)
        result = rng.choice([value.number(0, 999), value.phrase(1, 2), value.title()])
        shown = rng.choice([str(result), json.dumps({"result": result})])
        messages.append({"role": "tool", "content": shown})
        messages.append({"role": "assistant", "content": f"The answer is {result}."})
    return weighted(render(messages, tools), SKILL_WEIGHT, 0.1)


def make_rows(
    tok: Tokenizer, stories: list[Story], args: argparse.Namespace, rng: random.Random
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Short and long packed rows of about `args.tokens` tokens."""
    words, render = Keywords(stories), make_renderer()
    short, long = Packer(SHORT_ROW), Packer(LONG_ROW)
    made: Counter[str] = Counter()
    share = {"extract": args.extract, "tools": args.tools}
    share["story"] = 1 - sum(share.values())
    epoch: Iterator[Sample] = iter(())
    while sum(made.values()) < args.tokens:
        kind = min(share, key=lambda k: made[k] / share[k])
        if kind == "story":
            batch = [s for _, s in zip(range(2000), epoch, strict=False)]
            if not batch:
                epoch = story_epoch(rng.sample(stories, len(stories)), words, render, rng)
        else:
            batch = [skill_sample(kind, render, rng) for _ in range(1000)]
        for tokens, weights in encode(tok, batch):
            made[kind] += len(tokens)
            to_long = (len(tokens) > 600 and rng.random() < 0.3) or rng.random() < 0.05
            (long if to_long else short).add(tokens, weights)
    print("tokens made:", dict(made), flush=True)
    return short.finish(rng), long.finish(rng)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stories", type=Path, required=True)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--sources", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokens", type=float, default=22e6)
    parser.add_argument("--extract", type=float, default=0.15, help="share of the tokens")
    parser.add_argument("--tools", type=float, default=0.15, help="share of the tokens")
    parser.add_argument("--no-repeats", action="store_true", help="drop rows with refrains")
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    stories = read_stories(args.stories, args.index, args.sources)
    args.out.mkdir(parents=True, exist_ok=True)
    held = [s.text for s in stories if s.held_out]
    (args.out / "heldout.json").write_text(json.dumps(held))
    train = [s for s in stories if not s.held_out]
    path = args.out / "tokenizer.json"
    if not path.exists():
        render = make_renderer()
        made = [
            "".join(t for t, _ in skill_sample(k, render, rng))
            for k in ("extract", "tools")
            for _ in range(2500)
        ]
        train_tokenizer(iter([s.text for s in train] + made), args.vocab).save(str(path))
    tok = Tokenizer.from_file(str(path))
    print(len(train), "documents to train on,", len(held), "held out; vocab", tok.get_vocab_size())
    for name, rows in zip(("short", "long"), make_rows(tok, train, args, rng), strict=True):
        if args.no_repeats:
            rows = without_repeats(rows, weight=10)
        np.savez(args.out / f"{name}.npz", **rows)
        print(name, rows["ids"].shape, f"filled {(rows['segments'] > 0).mean():.3f}", flush=True)


if __name__ == "__main__":
    main()
