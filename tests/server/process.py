"""A real server process over a random-weight checkpoint with a tokenizer."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests import oracle, vocabularies

START_S = 90.0
"""Importing torch takes most of a start; machines that run tests are busy."""
FIELDS = {"vocab_size": 512, "eos_token_id": 2, "max_position_embeddings": 2048}
SHAPE = oracle.Shape("served", "LlamaConfig", 0, FIELDS)


def write_checkpoint(folder: Path) -> Path:
    """A Llama of a few kilobytes (context 2,048) that speaks byte-level BPE of 500 tokens."""
    made = oracle.make_checkpoint("llama", SHAPE, SHAPE.seed, folder)
    config = {"eos_token": "<|im_end|>", "chat_template": vocabularies.CHAT_TEMPLATE}
    return vocabularies.write_folder(made, vocabularies.byte_level_json(), tokenizer_config=config)


class Server:
    """`penstock serve` in a process of its own; its output goes to a file."""

    def __init__(self, model: Path, output: Path, *flags: str, port: int = 0) -> None:
        self._output = output
        command = [sys.executable, "-m", "penstock.cli", "serve", str(model), *flags]
        command += ["--port", str(port)]
        with output.open("w") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file)
        self.url = ""

    @property
    def output(self) -> str:
        return self._output.read_text(encoding="utf-8")

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.output
            return "Serving at " in self.output

        wait(ready, START_S, lambda: self.output)
        self.url = self.output.split("Serving at ")[1].split("/v1")[0]

    def engine_pid(self) -> int:
        """The process that runs the model."""
        (engine,) = [
            child.pid
            for child in psutil.Process(self.process.pid).children()
            if "penstock.engine.process" in child.cmdline()
        ]
        return engine

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait_exit(self, timeout_s: float = 30.0) -> int:
        return self.process.wait(timeout_s)

    def metric(self, name: str) -> float:
        """Sum of a metric's samples."""
        text = httpx.get(f"{self.url}/metrics").text
        found = [
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        ]
        assert found, f"no metric {name}"
        return sum(found)


@contextmanager
def serving(model: Path, output: Path, *flags: str) -> Iterator[Server]:
    """A server that is ready; killed at the end if it still runs."""
    server = Server(model, output, *flags)
    try:
        server.wait_ready()
        yield server
    finally:
        if server.process.poll() is None:
            server.signal()
            try:
                server.wait_exit()
            except subprocess.TimeoutExpired:
                server.process.kill()
                server.wait_exit()


def wait(
    condition: Callable[[], bool], timeout_s: float, tell: Callable[[], str] = lambda: ""
) -> None:
    """Poll until the condition holds; AssertionError after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not within {timeout_s} s. {tell()}"
        time.sleep(0.02)
