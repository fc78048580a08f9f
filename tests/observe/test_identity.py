from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from penstock.config import Config, EngineConfig, ServerConfig
from penstock.engine.hub import DEMO
from penstock.observe import identity


def weights(path: Path, body: bytes) -> Path:
    head = json.dumps({"w": {"dtype": "U8", "shape": [len(body)]}}).encode()
    path.mkdir(exist_ok=True)
    (path / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + body)
    return path


def test_weights_are_told_apart(tmp_path: Path) -> None:
    body = bytes(1000)
    one = identity.of_weights(weights(tmp_path / "a", body))
    assert one == identity.of_weights(weights(tmp_path / "b", body)), "where they lie is no matter"
    assert one != identity.of_weights(weights(tmp_path / "c", body[:-1] + b"x"))
    assert one != identity.of_weights(weights(tmp_path / "d", body + b"\0"))
    assert len(one) == identity.DIGITS


def test_what_counts_as_config() -> None:
    def of(config: Config, threads: int = 1) -> dict[str, str]:
        return identity.hashes(config, DEMO, DEMO, {"default": "t"}, "cpu amx", threads)

    plain = of(Config())
    assert plain == of(Config(server=ServerConfig(port=1, api_key=("secret",))))
    changed = of(Config(engine=EngineConfig(max_num_seqs=3)))
    assert {name for name in plain if plain[name] != changed[name]} == {"config"}
    assert {n for n in plain if plain[n] != of(Config(), threads=2)[n]} == {"kernels"}


def test_secrets_stay_out() -> None:
    config = replace(Config(), server=ServerConfig(api_key=("secret",)))
    assert "secret" not in json.dumps(identity.config_data(config))


def test_parts_do_not_run_together() -> None:
    assert identity.digest(b"ab", b"c") != identity.digest(b"a", b"bc")
