"""The HTTP server: where it listens, whom it admits, how long it waits."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.config.option import option


@dataclass(frozen=True, slots=True)
class ServerConfig:
    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 for every interface")
    port: int = option(8000, "Port to listen on; 0 for any free one")
    api_key: tuple[str, ...] = option(
        (),
        "Key that clients must send as a bearer token (repeatable)",
        automatic="none, open to all",
    )
    api_keys_file: str | None = option(
        None,
        "TOML file of keys with names, limits and weights (docs/api.md)",
        automatic="no keys but those of --api-key",
    )
    allowed_origins: tuple[str, ...] = option(
        (),
        "Origin of web pages that may call the API from a browser, * for all (repeatable)",
        automatic="none but the server's own pages",
    )
    trust_request_chat_template: bool = option(
        False,
        "Render a chat by the `chat_template` that its request brings: code of the client's, in a"
        " sandbox, that may take the tokenizer's threads for long",
    )
    sse_keep_alive_s: float = option(
        15.0, "Silence in a stream after which a comment is sent to keep it open", unit="seconds"
    )
    max_waiting: int | None = option(
        None,
        "Most requests that may queue; further ones get 429 with Retry-After",
        unit="requests",
        automatic="4 x max_num_seqs",
    )
    max_body_bytes: int = option(
        32 * 2**20, "Largest body of a request; takes suffixes such as 32MiB", unit="bytes"
    )
    data_dir: str | None = option(
        None,
        "Folder for what clients leave here: files, batches and stored responses",
        automatic="nothing is kept: no files, no batches, no stored responses",
    )
    max_file_bytes: int = option(
        200 * 2**20, "Largest file of an upload; takes suffixes such as 200MiB", unit="bytes"
    )
    request_timeout_s: float | None = option(
        None,
        "Deadline of requests that bring none",
        unit="seconds",
        automatic="no deadline",
    )
    drain_timeout_s: float = option(
        30.0, "On SIGTERM, how long running requests may take to finish", unit="seconds"
    )
    health_stuck_after_s: float = option(
        60.0,
        "/health fails when the oldest unserved work saw no progress for this long",
        unit="seconds",
    )
    log_level: str = option(
        "info", "Least severe messages to print", choices=("debug", "info", "warning", "error")
    )
