"""Where values come from: default < TOML file < environment < flag. The result is a `Config`.

The only reader of the environment, and the only importer of the CLI library: flags are derived
from the dataclasses of `config`, and from a command's own options of the same kind.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, Signature
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from rich.console import Console

from penstock.config.option import Option, options
from penstock.config.tree import SECTIONS, Config, all_options
from penstock.errors import ConfigError

PREFIX = "PENSTOCK_"
OTHER_VARIABLES = {
    "PENSTOCK_CONFIG": "the TOML file, as --config",
    "PENSTOCK_DEBUG": "1 shows the traceback of an error",
    "PENSTOCK_NATIVE": "when installing: 1 makes a failed build of the CPU kernels an error",
}
"""Variables that are not options of the tree."""

SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
TRUE = ("1", "true", "yes", "on")
FALSE = ("0", "false", "no", "off")
WANTED = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclass(frozen=True, slots=True)
class Settings:
    """A checked config, and for each option (`section.name`) what set it."""

    config: Config
    sources: Mapping[str, str]

    def changes(self) -> list[str]:
        """One line for each option that something other than its default set."""
        lines = []
        for option in all_options():
            source = self.sources[option.path]
            if source != "default":
                value = getattr(getattr(self.config, option.section), option.name)
                shown = "…" if option.name == "api_key" else repr(value)
                lines.append(f"{option.name} = {shown}  ({source})")
        return lines


def load(
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    file: str | Path | None = None,
) -> Settings:
    """Merge the sources and check the result.

    flags: by option name, only those given. environment: default `os.environ`. file: a TOML file;
    default the one that PENSTOCK_CONFIG names, if any. Raises ConfigError naming what is wrong,
    where it was set, and the cure.
    """
    environment = os.environ if environment is None else environment
    file = file or environment.get("PENSTOCK_CONFIG")
    known = {option.path: option for option in all_options()}
    values: dict[str, Any] = {}
    sources = dict.fromkeys(known, "default")
    found = (*_from_file(file, known), *_from_environment(environment), *_from_flags(flags or {}))
    for option, value, source in found:
        values[option.path] = convert(option, value, source)
        sources[option.path] = source
    sections = {
        name: section(
            **{o.name: values[o.path] for o in options(section, name) if o.path in values}
        )
        for name, section in SECTIONS.items()
    }
    try:
        return Settings(Config(**sections).check(), sources)
    except ConfigError as error:
        path = next((path for path, option in known.items() if option.name == error.param), "")
        if sources.get(path, "default").startswith(("default", "the flag")):
            raise
        message = f"{error.message} It was set by {sources[path]}."
        raise ConfigError(message, cure=error.cure, param=error.param) from None


Found = tuple[Option, Any, str]
"""An option, the value that a source gives it, and the source in words."""


def _from_file(file: str | Path | None, known: Mapping[str, Option]) -> Iterable[Found]:
    if file is None:
        return
    try:
        tables = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        cause = f"The config file {file} cannot be read: {error.strerror}."
        raise ConfigError(cause, cure="Check the path given by --config.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        cause = f"The config file {file} is not TOML: {error}."
        raise ConfigError(cause, cure="Correct that line.") from None
    for section, table in tables.items():
        if section not in SECTIONS or not isinstance(table, dict):
            cause = f"The config file {file} has {section!r} at its top."
            raise ConfigError(cause, cure=_nearest(f"[{section}]", [f"[{s}]" for s in SECTIONS]))
        for key, value in table.items():
            if f"{section}.{key}" not in known:
                cause = f"The config file {file} sets an unknown key {key!r} in [{section}]."
                raise ConfigError(cause, cure=_place(section, key, known.values()))
            yield known[f"{section}.{key}"], value, f"{key} in [{section}] of {file}"


def _place(section: str, key: str, known: Iterable[Option]) -> str:
    for option in known:
        if option.name == key:
            return f"It belongs in [{option.section}]."
    return _nearest(key, [option.name for option in known if option.section == section])


def _from_environment(environment: Mapping[str, str]) -> Iterable[Found]:
    known = {option.variable: option for option in all_options()}
    for name, text in environment.items():
        if name in known:
            option = known[name]
            parts = [part.strip() for part in text.split(",")]
            yield option, parts if option.many else text, f"the environment variable {name}"
        elif name.startswith(PREFIX) and name not in OTHER_VARIABLES:
            cure = _nearest(name, [*known, *OTHER_VARIABLES])
            raise ConfigError(f"The environment variable {name} is unknown.", cure=cure)


def _from_flags(flags: Mapping[str, Any]) -> Iterable[Found]:
    known = {option.name: option for option in all_options()}
    for name, value in flags.items():
        if name not in known:
            raise ConfigError(f"{name!r} is no option.", cure=_nearest(name, list(known)))
        yield known[name], value, f"the flag {known[name].flag}"


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {close[0]}?" if close else f"Known are {', '.join(known)}."


def convert(option: Option, value: Any, source: str) -> Any:
    """The value in the option's type; texts are read. Raises ConfigError naming the source."""
    if option.many:
        items = value if isinstance(value, list | tuple) else [value]
        if option.kind is not str:
            items = [part for item in items for part in str(item).split(",")]
        return tuple(_convert_one(option, item, source) for item in items)
    if value is None and option.optional:
        return None
    return _convert_one(option, value, source)


def _convert_one(option: Option, value: Any, source: str) -> Any:
    try:
        if isinstance(value, str):
            return _read(option, value)
        if option.kind is float and type(value) is int:
            return float(value)
    except (ValueError, OverflowError):
        pass
    else:
        if type(value) is option.kind:
            return value
    wanted = WANTED[option.kind]
    by = "" if source == f"the flag {option.flag}" else f", set by {source}"
    cause = f"{option.flag} is {value!r}{by}: that is not {wanted}."
    given = f" in {option.unit}" if option.unit else ""
    raise ConfigError(cause, cure=f"Give {wanted}{given}.", param=option.name)


def _read(option: Option, text: str) -> Any:
    """Raises ValueError."""
    if option.kind is str:
        return text
    text = text.strip()
    if option.kind is bool:
        word = text.lower()
        if word not in TRUE + FALSE:
            raise ValueError(text)
        return word in TRUE
    if option.unit == "bytes":
        digits = text.rstrip("bBiIkKmMgG ")
        suffix = text[len(digits) :].strip().lower().removesuffix("b")
        if suffix not in SUFFIXES:
            raise ValueError(text)
        return int(float(digits) * SUFFIXES[suffix])
    return option.kind(text)


# Flags


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the program: its words, where its function is, and one line of help."""

    words: tuple[str, ...]
    target: str
    help: str


def command(
    *sections: str, own: type | None = None
) -> Callable[[Callable[..., int | None]], Callable[..., int | None]]:
    """Give a function the flags of these sections of the config and of its own options.

    The function is called with a `Settings` if there are sections, then with an instance of `own`
    if there is one. It returns the exit code (None: 0).
    """

    def decorate(function: Callable[..., int | None]) -> Callable[..., int | None]:
        mine = list(options(own)) if own else []
        shared = [option for option in all_options() if option.section in sections]

        def call(*places: Any, **given: Any) -> int | None:
            arguments: list[Any] = []
            given |= zip(call.__annotations__, places, strict=False)
            file = given.pop("config", None)
            if sections:
                flags = {o.name: given[o.name] for o in shared if o.name in given}
                arguments.append(load(flags, file=file))
            if own:
                values = {o.name: given[o.name] for o in mine if o.name in given}
                arguments.append(own(**{o.name: _own(o, values) for o in mine if o.name in values}))
            return function(*arguments)

        parameters = [_parameter(option) for option in (*mine, *shared)]
        if sections:
            parameters.append(_file_parameter())
        parameters.sort(key=lambda item: (item.kind, item.default is None))
        call.__doc__ = function.__doc__
        call.__name__ = function.__name__
        call.__module__ = function.__module__
        call.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        return call

    return decorate


def _own(option: Option, values: Mapping[str, Any]) -> Any:
    value = convert(option, values[option.name], f"the flag {option.flag}")
    option.check(value)
    return value


def _parameter(option: Option) -> Parameter:
    """The flag of an option. None stands for "not given": defaults come from the tree."""
    notes = [option.unit] if option.unit else []
    notes += [f"one of {', '.join(option.choices)}"] if option.choices else []
    notes += [f"default: {option.default_text}"] if option.default_text else []
    about = cyclopts.Parameter(
        name=[option.flag, option.short] if option.short else option.flag,
        help=option.help + (f" [{'; '.join(notes)}]" if notes else ""),
        group=_group(option.section),
        metavar={int: "INT", float: "NUMBER", bool: None, str: "TEXT"}[option.kind],
        negative_iterable=(),
        negative=None if option.kind is bool else (),
        show_default=False,
        allow_leading_hyphen=option.kind in (int, float),
    )
    one: Any = bool if option.kind is bool else str
    kind: Any = list[str] if option.many else one
    kind = kind if option.required else kind | None
    return Parameter(
        option.name,
        Parameter.POSITIONAL_OR_KEYWORD if option.positional else Parameter.KEYWORD_ONLY,
        default=Parameter.empty if option.required else None,
        annotation=Annotated[kind, about],
    )


def _group(section: str) -> cyclopts.Group:
    order = ["", *SECTIONS]
    return cyclopts.Group(section.capitalize() or "Options", sort_key=order.index(section))


def _file_parameter() -> Parameter:
    text = "TOML file with options, a table for each section (docs/config.md)"
    about = cyclopts.Parameter(
        name="--config", help=text, show_default=False, group=_group(""), metavar="FILE"
    )
    hint = Annotated[str | None, about]
    return Parameter("config", Parameter.KEYWORD_ONLY, default=None, annotation=hint)


Application = cyclopts.App


def application(
    name: str,
    help: str,
    version: str,
    commands: Iterable[Command],
    shared_help: Mapping[str, str] | None = None,
) -> Application:
    """The program. A command's module is imported when it is chosen. shared_help: of the first of
    two words; without one it is that of the first command there."""
    app = cyclopts.App(name=name, help=help, version=version, help_format="plaintext")
    groups: dict[str, cyclopts.App] = {}
    for item in commands:
        parent = app
        if len(item.words) == 2:
            first = item.words[0]
            if first not in groups:
                groups[first] = cyclopts.App(
                    name=first, help=(shared_help or {}).get(first, item.help)
                )
                app.command(groups[first])
            parent = groups[first]
        parent.command(item.target, name=item.words[-1], help=item.help)
    return app


def call(app: Application, argv: Sequence[str] | None) -> int:
    """Run the command that argv names; its exit code. Raises ConfigError for flags that are wrong,
    and whatever the command raises."""
    try:
        result = app(
            argv,
            print_error=False,
            exit_on_error=False,
            result_action="return_value",
        )
    except cyclopts.CycloptsError as error:
        cause = " ".join(str(error).split())
        raise ConfigError(cause, cure="See --help.") from None
    return result if isinstance(result, int) else 0


def help_text(app: Application, words: Sequence[str], width: int = 100) -> str:
    """What `--help` prints for a command."""
    console = Console(file=StringIO(), width=width, color_system=None, legacy_windows=False)
    app.help_print(list(words), console=console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def debugging() -> bool:
    """Whether PENSTOCK_DEBUG asks for tracebacks."""
    return os.environ.get("PENSTOCK_DEBUG", "").lower() in TRUE
