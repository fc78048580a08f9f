"""API keys with names and limits, from a TOML file:

[keys.alice]
key = "…"                  # or key_sha256 = "…", so that the file tells no key
requests_per_minute = 60
tokens_per_minute = 100000
max_concurrency = 8
weight = 2                 # of its share of the engine; 1 when absent
share_cache = true         # read and write the prefix cache that others use; else its own
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.errors import ConfigError

MAX_KEYS = 1000
"""Each is a label in the metrics."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_LIMITS = ("requests_per_minute", "tokens_per_minute", "max_concurrency")


@dataclass(frozen=True, slots=True)
class Tenant:
    name: str
    digest: bytes
    """SHA-256 of the key, which itself is kept nowhere"""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None
    weight: float = 1.0
    share_cache: bool = False


def digest_of(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def load(path: Path) -> list[Tenant]:
    """Raises ConfigError naming the file, the key and the cause."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _wrong(path, f"cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _wrong(path, f"is not TOML: {error}") from None
    keys = tables.pop("keys", None)
    if tables or not isinstance(keys, dict) or not keys:
        raise _wrong(path, "must have tables [keys.NAME] and nothing else")
    if len(keys) > MAX_KEYS:
        raise _wrong(path, f"has {len(keys)} keys; at most {MAX_KEYS} are possible")
    found = [_tenant(path, name, table) for name, table in keys.items()]
    if len({tenant.digest for tenant in found}) < len(found):
        raise _wrong(path, "has the same key under two names")
    return found


def _tenant(path: Path, name: str, table: Any) -> Tenant:
    if not _NAME.fullmatch(name) or not isinstance(table, dict):
        raise _wrong(path, f"has {name[:80]!r}, which is no table with a plain name")
    table = dict(table)
    key, digest = table.pop("key", None), table.pop("key_sha256", None)
    if isinstance(key, str) and key and digest is None:
        raw = digest_of(key)
    elif isinstance(digest, str) and re.fullmatch("[0-9a-fA-F]{64}", digest) and key is None:
        raw = bytes.fromhex(digest)
    else:
        raise _wrong(path, f"must have key or key_sha256 (64 hex digits) in [keys.{name}]")
    limits = {limit: table.pop(limit, None) for limit in _LIMITS}
    for limit, value in limits.items():
        if value is not None and (type(value) is not int or value < 1):
            raise _wrong(path, f"has {limit} = {value!r} in [keys.{name}]: not 1 or more")
    weight, share = table.pop("weight", 1.0), table.pop("share_cache", False)
    if type(weight) not in (int, float) or not 0 < weight <= 1e6:
        raise _wrong(path, f"has weight = {weight!r} in [keys.{name}]: not above 0")
    if type(share) is not bool:
        raise _wrong(path, f"has share_cache = {share!r} in [keys.{name}]: not true or false")
    if table:
        raise _wrong(path, f"has the unknown {next(iter(table))!r} in [keys.{name}]")
    return Tenant(name, raw, **limits, weight=float(weight), share_cache=share)


def _wrong(path: Path, cause: str) -> ConfigError:
    return ConfigError(
        f"The keys file {path} {cause}.", cure="See docs/api.md.", param="api_keys_file"
    )
