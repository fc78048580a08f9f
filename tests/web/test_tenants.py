from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from penstock.errors import ConfigError
from penstock.web.tenants import Tenant, digest_of, load


def write(folder: Path, text: str) -> Path:
    path = folder / "keys.toml"
    path.write_text(text)
    return path


def test_keys_by_name(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"two").hexdigest()
    text = f"""
    [keys.ann]
    key = "one"
    requests_per_minute = 60
    tokens_per_minute = 1000
    max_concurrency = 4
    weight = 2
    share_cache = true
    [keys.bob]
    key_sha256 = "{digest}"
    """
    ann, bob = load(write(tmp_path, text))
    assert ann == Tenant("ann", digest_of("one"), 60, 1000, 4, 2.0, True)
    assert bob == Tenant("bob", digest_of("two"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "tables"),
        ("x = 1", "tables"),
        ("[keys.a]", "key or key_sha256"),
        ("[keys.a]\nkey = 5", "key or key_sha256"),
        ('[keys.a]\nkey = "x"\nkey_sha256 = "y"', "key or key_sha256"),
        ('[keys."a b"]\nkey = "x"', "plain name"),
        ('[keys.a]\nkey = "x"\nrequests_per_minute = 0', "1 or more"),
        ('[keys.a]\nkey = "x"\nmax_concurrency = true', "1 or more"),
        ('[keys.a]\nkey = "x"\nweight = 0', "not above 0"),
        ('[keys.a]\nkey = "x"\nshare_cache = 1', "true or false"),
        ('[keys.a]\nkey = "x"\nlimit = 1', "unknown 'limit'"),
        ('[keys.a]\nkey = "x"\n[keys.b]\nkey = "x"', "same key"),
        ("[keys", "not TOML"),
    ],
)
def test_files_at_fault_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load(write(tmp_path, text))
    assert "keys.toml" in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.toml")
