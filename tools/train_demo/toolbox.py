"""The tools that training knows: names, arguments and ways to ask for each."""

# ruff: noqa: SIM905  (word lists read best as words)
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skills import Values

PHRASE_WORDS = """
apple baby ball barn basket bath bear bed bee bell bench berry big bird black blanket blue boat
bone book boots bottle bowl box boy branch brave bread bridge bright broken broom brother brown
brush bucket butter button cake candle carpet carrot castle cat chair cheese cherry chicken child
church clean clock cloth cloud coat coffee cold cook cookie corn corner cottage cow crown cup
dance dark day deep dinner dish doctor doll door dragon dream dress dry duck dust early earth egg
empty evening fair family farm fast father feather feed fence field fire fish flag floor flour
flower fly fog forest fork fox fresh friend frog frost fruit funny garden gate ghost gift girl
glass gloves goat gold good goose grain grandmother grape grass great green guest hair hammer hand
happy harvest hat heavy hen hill holiday honey horse hot house hungry ice iron island jar jewel
journey juice key kind king kitchen kite knife ladder lake lamb lamp large late leaf learn lemon
letter light lion little lonely long loud love lunch market meadow meal medicine merry milk mill
mirror money monkey moon morning mother mountain mouse mud music nail narrow neighbor nest new
night noise north nut oak ocean old onion orange orchard oven owl paint pan paper parade parcel
party path pear pen penny pepper picture pie pig pillow pine plant plate plum pocket pond pony
poor pot potato prince puppy purple purse queen quick quiet rabbit rain red ribbon rice rich ring
river road robin roof room rope rose round rug sack sad sail salt sand school sea secret seed
shadow sheep shell ship shirt shoe shop silver sing sister sky sleepy slow small smoke snow soap
soft song soup spider spoon spring square stable star stone storm story stove straw street strong
sugar summer sun supper sweet swim sword table tall tea teacher tent thick thin thunder tiger
tired tower town toy train tree trip turnip uncle village violin visit wagon walk wall warm wash
watch water wedding wheat wheel whistle white wild wind window winter wise wolf wood wool yellow
young
""".split()

LANGUAGES = "French German Spanish Italian Latin Greek Dutch Polish Welsh Swedish Hindi".split()
ROOMS = "kitchen bedroom bathroom hall cellar attic garage office library garden".split()
UNITS = "miles feet inches pounds grams liters meters yards ounces gallons".split()
HABITS = "bread soup apples cheese pancakes rice pasta fish plums honey cake tea coffee".split()


@dataclass(frozen=True)
class Arg:
    """One argument: its possible names, JSON type, description and maker of values."""

    names: tuple[str, ...]
    type: str
    description: str
    make: Callable[[Values], Any]


@dataclass(frozen=True)
class Tool:
    """One tool under several names, with requests whose braces are filled with argument values."""

    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    args: dict[str, Arg]
    requests: tuple[str, ...]


def whole(names: str, description: str, low: int, high: int) -> Arg:
    return Arg(tuple(names.split()), "integer", description, lambda v: v.number(low, high))


def listed(names: str, description: str, words: list[str]) -> Arg:
    return Arg(tuple(names.split()), "string", description, lambda v: v.rng.choice(words))


def place(names: str, description: str = "name of the place") -> Arg:
    return Arg(tuple(names.split()), "string", description, lambda v: v.place())


def person(names: str, description: str = "name of the person") -> Arg:
    return Arg(tuple(names.split()), "string", description, lambda v: v.person())


def phrase(names: str, description: str, low: int = 1, high: int = 4) -> Arg:
    return Arg(tuple(names.split()), "string", description, lambda v: v.phrase(low, high))


def title(names: str, description: str) -> Arg:
    return Arg(tuple(names.split()), "string", description, lambda v: v.title())


def clock(names: str) -> Arg:
    return Arg(
        tuple(names.split()),
        "string",
        "time of day",
        lambda v: f"{v.number(0, 23)}:{v.number(0, 59):02d}",
    )


def tool(names: str, descriptions: str, args: dict[str, Arg], requests: str) -> Tool:
    """A `Tool` from compact text: names by spaces, descriptions and requests by "|"."""
    split = tuple(d.strip() for d in descriptions.split("|"))
    return Tool(tuple(names.split()), split, args, tuple(r.strip() for r in requests.split("|")))


TOOLS: list[Tool] = [
    tool(
        "get_weather weather current_weather get_forecast weather_lookup",
        "Get the weather of a place|Tells the current weather|Weather for a city",
        {"p": place("city location place town")},
        "What is the weather in {p}?|What's the weather like in {p}?|How is the weather in {p}"
        " today?|Tell me the weather in {p}.|Is it raining in {p}?|Will it be sunny in {p}?|"
        "Get the weather for {p}.",
    ),
    tool(
        "get_time current_time time_in local_time",
        "Get the time in a place|Tells the local time",
        {"p": place("city location place timezone")},
        "What time is it in {p}?|Tell me the time in {p}.|What is the local time in {p}?|"
        "Give me the time in {p}.",
    ),
    tool(
        "set_timer start_timer timer",
        "Start a timer|Sets a kitchen timer for some minutes",
        {"n": whole("minutes duration length", "length in minutes", 1, 120)},
        "Set a timer for {n} minutes.|Start a timer of {n} minutes.|Wake me in {n} minutes.|"
        "Count down {n} minutes.|I need a timer for {n} minutes.",
    ),
    tool(
        "set_alarm alarm wake_up",
        "Set an alarm|Rings at a time of day",
        {"t": clock("time at")},
        "Set an alarm for {t}.|Wake me up at {t}.|Set my alarm to {t}.|Ring at {t}.",
    ),
    tool(
        "add sum add_numbers plus",
        "Add two numbers|Gives the sum of two numbers",
        {
            "a": whole("a x first", "first number", 0, 999),
            "b": whole("b y second", "second number", 0, 999),
        },
        "What is {a} plus {b}?|Add {a} and {b}.|What is {a} + {b}?|How much is {a} plus {b}?|"
        "Find the sum of {a} and {b}.",
    ),
    tool(
        "multiply product times multiply_numbers",
        "Multiply two numbers|Product of two numbers",
        {
            "a": whole("a x first", "first number", 0, 999),
            "b": whole("b y second", "second number", 0, 999),
        },
        "What is {a} times {b}?|Multiply {a} by {b}.|What is {a} * {b}?|How much is {a} times {b}?",
    ),
    tool(
        "send_message message text send_text",
        "Send a message to a person|Sends a short text",
        {"w": person("to recipient person name"), "m": phrase("text message body", "what to say")},
        'Send {w} the message "{m}".|Tell {w}: {m}.|Text {w} "{m}".|'
        'Write a message to {w} saying "{m}".|Send a message to {w}: {m}.|Let {w} know: {m}.',
    ),
    tool(
        "send_email email write_email",
        "Send an email|Writes an email to someone",
        {"w": person("to recipient name"), "s": phrase("subject topic title", "subject line")},
        "Send an email to {w} about {s}.|Email {w} about {s}.|Write an email to {w} about {s}.|"
        'Send {w} an email with the subject "{s}".',
    ),
    tool(
        "call_person call phone make_call",
        "Call a person on the phone|Starts a phone call",
        {"w": person("name person contact who")},
        "Call {w}.|Phone {w}.|Ring up {w} now.|I want to talk to {w} on the phone.|"
        "Make a call to {w}.",
    ),
    tool(
        "play_song play play_music",
        "Play a song|Plays music",
        {"s": title("title song name", "title of the song")},
        'Play the song {s}.|Play {s}.|I want to hear {s}.|Put on the song "{s}".|'
        "Let me listen to {s}.",
    ),
    tool(
        "play_artist play_song_by play_track",
        "Play a song of an artist|Plays a track by someone",
        {"s": title("title song track", "title of the song"), "w": person("artist singer by")},
        "Play {s} by {w}.|I want to hear {s} by {w}.|Put on {s} by {w}.|Play the song {s} by {w}.",
    ),
    tool(
        "find_book search_book get_book book_lookup",
        "Find a book|Looks up a book by its title",
        {"s": title("title name book", "title of the book")},
        "Find the book {s}.|Look up the book {s}.|Do you have the book {s}?|"
        "Search for the book {s}.|I am looking for a book called {s}.",
    ),
    tool(
        "translate translate_text translator",
        "Translate text|Translates words to a language",
        {
            "m": phrase("text words phrase", "what to translate"),
            "l": listed("language target_language to", "language to translate to", LANGUAGES),
        },
        'Translate "{m}" to {l}.|How do you say "{m}" in {l}?|Translate "{m}" into {l}.|'
        "What is {m} in {l}?|Say {m} in {l}.",
    ),
    tool(
        "book_table reserve_table reservation",
        "Book a table|Reserves a table at a restaurant",
        {
            "p": title("restaurant place name", "name of the restaurant"),
            "n": whole("people guests seats", "how many people", 1, 20),
        },
        "Book a table at {p} for {n} people.|Reserve a table for {n} at {p}.|"
        "I need a table for {n} people at {p}.|Get us a table at {p} for {n}.",
    ),
    tool(
        "turn_on_light light_on lights switch_light",
        "Turn on the light|Switches a lamp on",
        {"r": listed("room place where", "which room", ROOMS)},
        "Turn on the light in the {r}.|Switch on the {r} light.|It is dark in the {r}, turn on "
        "the light.|Light up the {r}.|Turn the {r} lights on.",
    ),
    tool(
        "set_temperature heat set_heating thermostat",
        "Set the temperature of a room|Heating",
        {
            "r": listed("room place", "which room", ROOMS),
            "n": whole("degrees temperature value", "degrees", 10, 30),
        },
        "Set the {r} to {n} degrees.|Heat the {r} to {n} degrees.|Make it {n} degrees in the {r}."
        "|Set the temperature in the {r} to {n}.",
    ),
    tool(
        "search web_search search_web find",
        "Search the web|Looks for something on the web",
        {"q": phrase("query q text", "what to look for")},
        'Search for {q}.|Search the web for "{q}".|Look up {q}.|Find something about {q}.|'
        "Find pages about {q}.|What can you find about {q}?",
    ),
    tool(
        "add_to_list shopping_list add_item",
        "Add to the shopping list|Puts something on a list",
        {"i": phrase("item thing name", "what to add", 1, 2)},
        "Add {i} to the shopping list.|Put {i} on my list.|We need {i}, put it on the list.|"
        "Add {i} to my list.|Write {i} on the shopping list.",
    ),
    tool(
        "add_reminder remind reminder set_reminder",
        "Set a reminder|Reminds you at a time",
        {"m": phrase("text message task", "what to remember"), "t": clock("time at when")},
        "Remind me at {t} to {m}.|Set a reminder for {t}: {m}.|Remind me to {m} at {t}.|"
        'At {t}, remind me of "{m}".',
    ),
    tool(
        "create_event add_event calendar",
        "Add an event to the calendar|Makes a calendar entry",
        {
            "s": title("title name event", "title of the event"),
            "d": Arg(
                ("date", "day", "on"),
                "string",
                "date as year-month-day",
                lambda v: f"{v.number(1990, 2040)}-{v.number(1, 12):02d}-{v.number(1, 28):02d}",
            ),
        },
        "Put {s} in my calendar on {d}.|Add the event {s} on {d}.|Create an event {s} for {d}.|"
        "Plan {s} for {d}.",
    ),
    tool(
        "convert convert_units unit_converter",
        "Convert units|Changes an amount to another unit",
        {
            "n": whole("amount value number", "the amount", 1, 999),
            "f": listed("from from_unit unit", "unit of the amount", UNITS[:5]),
            "t": listed("to to_unit target", "unit wanted", UNITS[5:]),
        },
        "Convert {n} {f} to {t}.|How many {t} are {n} {f}?|What is {n} {f} in {t}?|"
        "Change {n} {f} into {t}.",
    ),
    tool(
        "order_food order buy_food",
        "Order food|Orders something to eat or drink",
        {
            "i": listed("item dish food", "what to order", HABITS),
            "n": whole("quantity count number", "how many", 1, 40),
        },
        "Order {n} portions of {i}.|I want {n} portions of {i}.|Get me {n} portions of {i}.|"
        "Buy {n} plates of {i}.",
    ),
    tool(
        "buy_ticket book_train find_train get_ticket",
        "Buy a train ticket|Finds a train",
        {
            "a": place("from origin start", "where from"),
            "b": place("to destination end", "where to"),
        },
        "Buy a ticket from {a} to {b}.|I want to go from {a} to {b} by train.|"
        "Find a train from {a} to {b}.|Book a train to {b} from {a}.|Get a ticket to {b} from {a}.",
    ),
    tool(
        "get_distance distance how_far",
        "Distance between two places|Tells how far two towns are",
        {
            "a": place("from origin a", "first place"),
            "b": place("to destination b", "second place"),
        },
        "How far is it from {a} to {b}?|What is the distance between {a} and {b}?|"
        "How far is {b} from {a}?|How many miles lie between {a} and {b}?",
    ),
    tool(
        "roll_dice dice throw_dice",
        "Roll dice|Throws a die with some sides",
        {"n": whole("sides faces", "number of sides", 2, 100)},
        "Roll a die with {n} sides.|Throw a dice with {n} sides.|Roll a {n}-sided die.",
    ),
    tool(
        "get_age age_of lookup_age",
        "Find the age of a person|Tells how old someone is",
        {"w": person("name person who")},
        "How old is {w}?|What is the age of {w}?|Find out how old {w} is.|Tell me the age of {w}.",
    ),
    tool(
        "find_person find_contact lookup get_address",
        "Find the address of a person|Looks up a contact",
        {"w": person("name person contact")},
        "Where does {w} live?|Find the address of {w}.|Look up the address of {w}.|"
        "What is the address of {w}?",
    ),
    tool(
        "get_population population city_size",
        "Population of a place|How many people live there",
        {"p": place("city place town")},
        "How many people live in {p}?|What is the population of {p}?|How big is {p}?",
    ),
    tool(
        "write_note note save_note take_note",
        "Save a note|Keeps a short note",
        {"m": phrase("text note content", "the note", 2, 5)},
        'Write a note: {m}.|Take a note: "{m}".|Note down {m}.|Save the note "{m}".',
    ),
    tool(
        "open_door unlock open_lock",
        "Open a door|Unlocks the door of a room",
        {"r": listed("door room where", "which door", ROOMS)},
        "Open the door of the {r}.|Unlock the {r}.|Open the {r} door.|Let me into the {r}.",
    ),
]
