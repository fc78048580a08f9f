"""llama.cpp's server over HTTP with token ids, every request on a connection of its own."""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

from benchmarks.cpu.protocol import START_S, Run, command_line, serve
from benchmarks.cpu.works import Request

SLOTS = 32
CONTEXT = 36864
"""of all slots together"""


def start(program: str, model: str, threads: int) -> tuple[Run, dict[str, Any]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "-m", model, "--port", str(port), "-t", str(threads), "-tb", str(threads)]
    command += ["-np", str(SLOTS), "-c", str(CONTEXT), "-b", "2048", "-ub", "512", "--no-webui"]
    process = subprocess.Popen(command, stdout=sys.stderr, stderr=sys.stderr)
    _await(process, port)

    def complete(request: Request) -> tuple[float, float, int]:
        """(when its first and its last token came, tokens)."""
        prompt, count = request
        body = {
            "prompt": prompt,
            "n_predict": count,
            "ignore_eos": True,
            "stream": True,
            "cache_prompt": True,
            "return_tokens": True,
            "samplers": ["top_k"],
            "top_k": 1,
            "temperature": 0,
        }
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)
        connection.request("POST", "/completion", json.dumps(body))
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(response.read().decode(errors="replace"))
        first = last = 0.0
        made = 0
        for line in response:
            if line.startswith(b"data:") and (new := len(json.loads(line[5:]).get("tokens") or ())):
                last = perf_counter()
                first = first or last
                made += new
        connection.close()
        return first, last, made

    def run(requests: list[Request]) -> dict[str, float]:
        began = perf_counter()
        with ThreadPoolExecutor(len(requests)) as clients:
            done = list(clients.map(complete, requests))
        return {
            "seconds": max(last for _, last, _ in done) - began,
            "first_s": min(first for first, _, _ in done) - began,
            "tokens": sum(made for _, _, made in done),
        }

    run([([300] * 64, 8)])
    return run, {"version": _version(program), "kv_dtype": "float16"}


def _await(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"llama-server does not answer (exit code {process.poll()})")


def _version(program: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True)
    return (done.stderr + done.stdout).strip().partition("\n")[0]


def main() -> None:
    given = command_line(argparse.ArgumentParser(), "--program")
    serve(lambda: start(given.program, given.model, given.threads))


if __name__ == "__main__":
    main()
