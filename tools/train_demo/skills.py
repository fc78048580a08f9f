"""Made-up cases of the two skills: JSON extraction and tool calls.

Names, places and made-up words of the test are never used in training: one belongs to the test
when the checksum of its text says so, and both sides ask `Values` for values of their side.
"""

# ruff: noqa: SIM905  (word lists read best as words)
from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toolbox import PHRASE_WORDS, TOOLS, Tool

Message = dict[str, Any]

FIRST = """Anna Ben Clara David Emma Felix Grace Henry Iris Jack Kate Leo Maria Nina Oscar Paul
Rosa Sam Tom Vera Will Zoe Amir Bruno Chloe Daniel Elena Farid Greta Hugo Ingrid Jonas Kenji Lucy
Mateo Noah Olga Priya Ravi Sofia Tara Yusuf Alice Peter John Mary Lena Omar Ruth Hans""".split()
PLACES = """Bergen Paris London Rome Oslo Berlin Madrid Vienna Lisbon Prague Dublin Cairo Tokyo
Lima Boston Chicago Delhi Athens Geneva Krakow Lyon Milan Porto Quito Seoul Turin York Zurich Kyoto
Havana Hamburg Leeds Munich Nairobi Naples Ottawa Perth Sydney Tunis Warsaw""".split()
ONSETS = "b br c ch d dr f fl g gr h j k kl l m n p pr qu r s sh sk st t th tr v w y z".split()
VOWELS = "a e i o u a e i o ai ea ee ie oo ou".split()
CODAS = ["", "", "", "", "l", "n", "r", "s", "t", "k", "m", "nd", "rn", "x", "sh"]
JOBS = """baker teacher farmer doctor nurse painter carpenter sailor tailor singer cook pilot
driver lawyer gardener writer miller smith engineer plumber dentist librarian shepherd""".split()
COLORS = "red blue green yellow black white brown grey pink purple orange silver golden".split()
ANIMALS = """dog cat horse goat parrot rabbit cow hen pig sheep donkey mouse goose duck fox pony
turtle hamster lizard canary""".split()
FOODS = """bread soup apples cheese pancakes rice pasta fish plums honey cake porridge cherries
potatoes salad eggs dumplings noodles""".split()
ITEMS = """lamp chair table coat hat basket kettle book clock mirror carpet boat bicycle spoon
bowl rope drum blanket ladder ring""".split()
INSTRUMENTS = "violin piano flute drum harp guitar trumpet cello".split()
MONTHS = """January February March April May June July August September October November
December""".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()


class Values:
    """Random values, of the training side or of the held-out side."""

    def __init__(self, rng: random.Random, held_out: bool) -> None:
        self.rng, self.held_out = rng, held_out

    def _mine(self, text: str) -> bool:
        return (zlib.crc32(text.lower().encode()) % 8 == 0) == self.held_out

    def made_up(self, low: int = 1, high: int = 3) -> str:
        """A word of random syllables, such as Tovrika."""
        r = self.rng
        while True:
            parts = [r.choice(ONSETS) + r.choice(VOWELS) for _ in range(r.randint(low, high))]
            word = "".join(parts) + r.choice(CODAS)
            if len(word) >= 3 and self._mine(word):
                return word.capitalize()

    def pick(self, known: list[str], share_known: float) -> str:
        """One of a list, or a made-up word; on the held-out side only list words of that side."""
        words = [w for w in known if self._mine(w)]
        if words and self.rng.random() < share_known:
            return self.rng.choice(words)
        return self.made_up()

    def person(self) -> str:
        name = self.pick(FIRST, 0.35)
        return f"{name} {self.made_up()}" if self.rng.random() < 0.25 else name

    def place(self) -> str:
        name = self.pick(PLACES, 0.35)
        front = self.rng.random()
        return (
            f"{self.rng.choice(['New', 'Port', 'San', 'North'])} {name}" if front < 0.07 else name
        )

    def number(self, low: int, high: int) -> int:
        return self.rng.randint(low, high)

    def price(self) -> float | int:
        if self.rng.random() < 0.5:
            return self.rng.randint(1, 999)
        return round(self.rng.randint(1, 199) + self.rng.randint(1, 99) / 100, 2)

    def phrase(self, low: int = 1, high: int = 4) -> str:
        """A few plain words, such as "wash the green coat"."""
        words = [self.rng.choice(PHRASE_WORDS) for _ in range(self.rng.randint(low, high))]
        if self.rng.random() < 0.15:
            words[-1] = self.made_up().lower()
        return " ".join(words)

    def title(self) -> str:
        return self.phrase(1, 3).title()


@dataclass(frozen=True)
class Field:
    """A kind of value in a sentence: its possible names, its maker and clauses that state it."""

    names: tuple[str, ...]
    make: Callable[[Values], Any]
    clauses: tuple[str, ...]


def one_of(words: list[str]) -> Callable[[Values], str]:
    """A maker that picks a word; one in eight is a rarer word of the phrase list."""
    return lambda v: v.rng.choice(words if v.rng.random() < 0.87 else PHRASE_WORDS)


def email(v: Values) -> str:
    return f"{v.made_up()}@{v.made_up()}.{v.rng.choice(['com', 'org', 'net'])}".lower()


PERSON_FIELDS: dict[str, Field] = {
    "age": Field(
        ("age",),
        lambda v: v.number(2, 99),
        ("is {} years old", "is {}", "turned {} this year", "has just turned {}", "is aged {}"),
    ),
    "city": Field(
        ("city", "town", "location", "home", "place"),
        Values.place,
        (
            "lives in {}",
            "comes from {}",
            "is from {}",
            "has moved to {}",
            "grew up in {}",
            "has a house in {}",
            "was born in {}",
        ),
    ),
    "job": Field(
        ("job", "profession", "occupation", "work"),
        one_of(JOBS),
        ("works as a {}", "is a {}", "has a job as a {}", "earns a living as a {}", "became a {}"),
    ),
    "color": Field(
        ("color", "favorite_color", "colour"),
        one_of(COLORS),
        (
            "likes the color {}",
            "loves {} above all colors",
            "always wears {}",
            "has {} as a favorite color",
            "painted the door {}",
        ),
    ),
    "pet": Field(
        ("pet", "animal"),
        one_of(ANIMALS),
        ("has a {}", "keeps a {}", "owns a {}", "bought a {} last week", "looks after a {}"),
    ),
    "pet_name": Field(
        ("pet_name", "dog_name"),
        Values.made_up,
        ("has a pet called {}", "named the dog {}", "walks with a dog named {}"),
    ),
    "food": Field(
        ("food", "favorite_food", "dish", "meal"),
        one_of(FOODS),
        ("likes {}", "eats {} every day", "loves to cook {}", "ordered {} for lunch"),
    ),
    "instrument": Field(
        ("instrument",),
        one_of(INSTRUMENTS),
        ("plays the {}", "is learning the {}", "practices the {} every day"),
    ),
    "friend": Field(
        ("friend", "best_friend"),
        Values.person,
        ("is a friend of {}", "has a friend called {}", "often visits {}", "met {} at school"),
    ),
    "email": Field(
        ("email",), email, ("can be reached at {}", "has the email address {}", "writes from {}")
    ),
    "phone": Field(
        ("phone", "phone_number"),
        lambda v: f"{v.number(100, 999)}-{v.number(1000, 9999)}",
        ("has the phone number {}", "can be called at {}", "answers the phone at {}"),
    ),
    "company": Field(
        ("company", "employer"),
        lambda v: v.made_up() + v.rng.choice(["", " Ltd", " Works", " Brothers"]),
        ("works for {}", "has a post at {}", "was hired by {}", "joined {} in spring"),
    ),
    "height": Field(
        ("height", "height_cm"),
        lambda v: v.number(90, 205),
        ("is {} cm tall", "measures {} cm", "stands {} cm tall"),
    ),
}

THINGS = {
    "item": ("item", "product", "thing"),
    "price": ("price", "cost", "amount"),
    "quantity": ("quantity", "count", "number"),
    "buyer": ("buyer", "customer", "name"),
    "city": ("city", "town", "place"),
    "day": ("day", "weekday"),
    "title": ("title", "book"),
    "author": ("author", "writer"),
    "year": ("year",),
    "month": ("month",),
    "event": ("event", "name"),
    "people": ("people", "guests"),
    "color": ("color",),
    "from": ("from", "origin", "start"),
    "to": ("to", "destination", "end"),
    "minutes": ("minutes", "duration"),
}
OTHER_SENTENCES = (
    "{buyer} bought a {color} {item} for {price} dollars.",
    "{buyer} paid {price} dollars for {quantity} {item}s in {city}.",
    "On {day}, {buyer} ordered {quantity} {item}s.",
    "The {color} {item} costs {price} euros at the shop in {city}.",
    "A {item} was sold to {buyer} on {day} for {price} dollars.",
    "{quantity} {item}s were sent to {buyer} in {city} on {day}.",
    "The price of the {item} is {price} dollars, and {buyer} wants {quantity} of them.",
    "{title} was written by {author} in {year}.",
    "In {year}, {author} wrote a book called {title}.",
    "The book {title} by {author} costs {price} dollars and came out in {year}.",
    "{author} is the author of {title}, printed in {city} in {year}.",
    "The {event} will be held in {city} on {day}, and {people} people will come.",
    "{people} guests came to the {event} in {city} in {month} {year}.",
    "The {event} takes place in {month} {year} in {city}.",
    "The train from {from} to {to} leaves on {day} and takes {minutes} minutes.",
    "{buyer} travels from {from} to {to} on {day}.",
    "A ticket from {from} to {to} costs {price} dollars.",
    "It takes {minutes} minutes to go from {from} to {to}.",
    "The meeting with {buyer} is on {day} in {city} and lasts {minutes} minutes.",
)


def other_value(v: Values, key: str) -> Any:
    """A value for a field of `OTHER_SENTENCES`."""
    makers: dict[str, Callable[[], Any]] = {
        "item": lambda: v.rng.choice(ITEMS),
        "price": v.price,
        "quantity": lambda: v.number(2, 60),
        "buyer": v.person,
        "city": v.place,
        "day": lambda: v.rng.choice(DAYS),
        "title": v.title,
        "author": v.person,
        "year": lambda: v.number(1700, 2030),
        "month": lambda: v.rng.choice(MONTHS),
        "event": lambda: v.rng.choice(["fair", "concert", "wedding", "market", "race", "feast"]),
        "people": lambda: v.number(5, 900),
        "color": lambda: v.rng.choice(COLORS),
        "from": v.place,
        "to": v.place,
        "minutes": lambda: v.number(5, 240),
    }
    return makers[key]()


def person_sentence(v: Values) -> tuple[str, dict[str, Any]]:
    """A sentence or two about one person, and its fields in the order of the sentence."""
    r = v.rng
    name = v.person()
    keys = r.sample(list(PERSON_FIELDS), r.choice([1, 2, 2, 3, 3, 4]))
    record: dict[str, Any] = {}
    clauses = []
    for key in keys:
        field = PERSON_FIELDS[key]
        value = field.make(v)
        record[r.choice(field.names) if r.random() < 0.5 else field.names[0]] = value
        clause = r.choice(field.clauses).format(value)
        if isinstance(value, str) and value[0] in "aeiou":
            clause = clause.replace(f" a {value}", f" an {value}")
        clauses.append(clause)
    who = r.choice(["name"] * 8 + ["person", "first_name"])
    return join_clauses(r, name, clauses), {who: name, **record}


def join_clauses(r: random.Random, name: str, clauses: list[str]) -> str:
    """ "Anna, who is 7, lives in Bergen." and other ways to say several things of one person."""
    pronoun = r.choice(["She", "He"])
    if len(clauses) == 1:
        start = r.choice(["", "", "My neighbor ", "Today we met a person called "])
        return (
            f"{name} {clauses[0]}."
            if not start.startswith("Today")
            else (f"{start}{name}, who {clauses[0]}.")
        )
    first, rest = clauses[0], clauses[1:]
    kind = r.randrange(5)
    if kind == 0:
        tail = rest[0] if len(rest) == 1 else ", ".join(rest[:-1]) + " and " + rest[-1]
        return f"{name}, who {first}, {tail}."
    if kind == 1:
        return f"{name} " + ", ".join(clauses[:-1]) + f" and {clauses[-1]}."
    if kind == 2:
        return f"{name} {first}. {pronoun} " + " and ".join(rest) + "."
    if kind == 3:
        return f"{name} {first} and {rest[0]}." + "".join(f" {pronoun} {c}." for c in rest[1:])
    greeting = r.choice(["This is", "Meet", "I know"])
    return f"{greeting} {name}. {pronoun} " + f". {pronoun} ".join(clauses) + "."


def other_sentence(v: Values) -> tuple[str, dict[str, Any]]:
    """A sentence about a purchase, a book, an event or a journey."""
    pattern = v.rng.choice(OTHER_SENTENCES)
    keys = [k for k in THINGS if "{" + k + "}" in pattern]
    values = {k: other_value(v, k) for k in keys}
    if "{item}s" in pattern:
        values["item"] += "s"
        pattern = pattern.replace("{item}s", "{item}")
    if "from" in values:
        keys.sort(key=["buyer", "from", "to", "day", "price", "minutes"].index)
    names = {k: v.rng.choice(THINGS[k]) if v.rng.random() < 0.5 else THINGS[k][0] for k in keys}
    sentence = pattern.format(**values)
    return sentence[0].upper() + sentence[1:], {names[k]: values[k] for k in keys}


ASK = (
    'Extract {fields} as JSON: "{text}"',
    "Extract {fields} as JSON: {text}",
    'Extract the {fields} from this sentence as JSON: "{text}"',
    "Give me {fields} as JSON.\n\n{text}",
    "{text}\n\nExtract {fields} as JSON.",
    'From the sentence "{text}" extract {fields}. Answer in JSON.',
    "Read the text and return a JSON object with the fields {fields}.\nText: {text}",
    "Text: {text}\nFields: {list}\nJSON:",
    "Return JSON with the keys {list} for: {text}",
    'What are the {fields} in "{text}"? Reply with JSON only.',
    "Pull out {fields} and write them as JSON: {text}",
    '"{text}" - write {fields} of this as a JSON record.',
    "Make a JSON record with {fields} from this: {text}",
)


def and_list(words: list[str]) -> str:
    """ "name, age and city"."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def extraction_case(rng: random.Random, held_out: bool) -> tuple[list[Message], dict[str, Any]]:
    """The messages of one extraction request and the record that it should give."""
    v = Values(rng, held_out)
    text, record = person_sentence(v) if rng.random() < 0.68 else other_sentence(v)
    fields = list(record)
    if rng.random() < 0.5:
        fields = rng.sample(fields, rng.randint(1, len(fields)))
    answer = {k: record[k] for k in fields}
    ask = rng.choice(ASK).format(fields=and_list(fields), list=", ".join(fields), text=text)
    messages: list[Message] = [{"role": "user", "content": ask}]
    if rng.random() < 0.2:
        system = rng.choice(
            [
                "You are a helpful assistant.",
                "You answer in JSON.",
                "You extract records from text.",
            ]
        )
        messages.insert(0, {"role": "system", "content": system})
    return messages, answer


def copy_case(rng: random.Random) -> tuple[list[Message], str]:
    """A drill: made-up words, numbers and phrases to be said again, plainly or as a JSON list."""
    v = Values(rng, False)
    makers: list[Callable[[], Any]] = [
        v.made_up,
        v.person,
        v.place,
        lambda: v.number(0, 9999),
        v.phrase,
        v.phrase,
        lambda: v.phrase(1, 1),
        lambda: v.phrase(1, 1),
        v.title,
        v.price,
        lambda: v.made_up().lower(),
        lambda: email(v),
    ]
    parts = [rng.choice(makers)() for _ in range(rng.randint(1, 7))]
    if rng.random() < 0.5:
        ask = rng.choice(["Write as a JSON list: {}", "Make a JSON list of {}", "JSON list: {}"])
        messages = [{"role": "user", "content": ask.format(and_list([str(p) for p in parts]))}]
        return messages, json.dumps(parts)
    text = rng.choice([", ", " ", "; "]).join(str(p) for p in parts)
    ask = rng.choice(["Repeat: {}", "Say exactly: {}", "Copy this: {}", 'Repeat "{}"'])
    return [{"role": "user", "content": ask.format(text)}], text


def tool_schema(tool: Tool, rng: random.Random) -> tuple[dict[str, Any], dict[str, str]]:
    """An OpenAI-style schema of the tool under random names, and the names of its arguments."""
    names = {key: rng.choice(arg.names) for key, arg in tool.args.items()}
    properties: dict[str, Any] = {}
    for key, arg in tool.args.items():
        properties[names[key]] = {"type": arg.type}
        if rng.random() < 0.35:
            properties[names[key]]["description"] = arg.description
    function = {
        "name": rng.choice(tool.names),
        "description": rng.choice(tool.descriptions),
        "parameters": {
            "type": "object",
            "properties": properties,
            "required": list(names.values()),
        },
    }
    if rng.random() < 0.15:
        function = json.loads(json.dumps(function, sort_keys=True))
    return {"type": "function", "function": function}, names


def tool_case(
    rng: random.Random, held_out: bool
) -> tuple[list[Message], list[dict[str, Any]], dict[str, Any]]:
    """The messages and tools of one request, and the call {"name", "arguments"} it needs."""
    v = Values(rng, held_out)
    chosen = rng.sample(TOOLS, rng.choice([1, 2, 2, 3, 3, 4]))
    schemas = [tool_schema(tool, rng) for tool in chosen]
    at = rng.randrange(len(chosen))
    tool, (schema, names) = chosen[at], schemas[at]
    values = {key: arg.make(v) for key, arg in tool.args.items()}
    ask = rng.choice(tool.requests).format(**values)
    if rng.random() < 0.2:
        ask = rng.choice(["Please ", "Can you ", "Could you "]) + ask[0].lower() + ask[1:]
    arguments = {names[key]: value for key, value in values.items()}
    messages: list[Message] = [{"role": "user", "content": ask[0].upper() + ask[1:]}]
    if rng.random() < 0.2:
        messages.insert(0, {"role": "system", "content": "You are a helpful assistant."})
    call = {"name": schema["function"]["name"], "arguments": arguments}
    return messages, [s for s, _ in schemas], call
