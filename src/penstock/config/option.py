"""One option: a dataclass field that also carries what help texts and documents say about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, field, fields
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from penstock.errors import ConfigError


def option(
    default: Any,
    help: str,
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    automatic: str = "",
    positional: bool = False,
    short: str = "",
) -> Any:
    """A dataclass field with metadata; MISSING as the default makes it required.

    unit: tokens, seconds, bytes …; choices: the only values allowed; automatic: what None, or an
    empty tuple, means; positional: may be given on the command line without its flag; short: a
    second spelling of the flag.
    """
    meta = {
        "help": help,
        "unit": unit,
        "choices": choices,
        "automatic": automatic,
        "positional": positional,
        "short": short,
    }
    if default is MISSING:
        return field(metadata=meta)
    return field(default=default, metadata=meta)


@dataclass(frozen=True, slots=True)
class Option:
    """What is known of one field; `kind` is str, int, float or bool, `many` a repeatable one."""

    section: str
    """name of the part of the tree, and of the table in a TOML file; "" for a command's own"""
    name: str
    kind: type
    many: bool
    optional: bool
    """whether None is a value"""
    required: bool
    default: Any
    help: str
    unit: str
    choices: tuple[str, ...]
    automatic: str
    positional: bool
    short: str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "PENSTOCK_" + self.name.upper()

    @property
    def path(self) -> str:
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def default_text(self) -> str:
        """The default as help texts and documents show it; empty when there is nothing to show."""
        if self.required or self.default is None or self.default == ():
            return self.automatic
        if isinstance(self.default, bool):
            return "on" if self.default else "off"
        if self.many:
            return ",".join(map(str, self.default))
        if self.unit == "bytes" and self.default % 2**20 == 0:
            return f"{self.default // 2**20}MiB"
        return f"{self.default:g}" if self.kind is float else str(self.default)

    def check(self, value: Any) -> None:
        """Raise ConfigError if there are choices and the value is none of them."""
        if self.choices and value not in self.choices:
            raise ConfigError(
                f"{self.flag} is {value!r}: not one of its choices.",
                cure=f"Use one of {', '.join(self.choices)}.",
                param=self.name,
            )


def options(section: type, name: str = "") -> Iterator[Option]:
    """The options of a dataclass in the order of its fields; `name` is that of its section."""
    hints = get_type_hints(section)
    for item in fields(section):
        yield _option(item, hints[item.name], name)


def _option(item: Field[Any], hint: Any, section: str) -> Option:
    parts = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    (kind,) = (part for part in parts if part is not NoneType)
    many = get_origin(kind) is tuple
    return Option(
        section=section,
        name=item.name,
        kind=get_args(kind)[0] if many else kind,
        many=many,
        optional=NoneType in parts,
        required=item.default is MISSING,
        default=None if item.default is MISSING else item.default,
        **item.metadata,
    )
