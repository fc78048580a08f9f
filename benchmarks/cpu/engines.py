"""Who takes part: each engine and precision, how it is started, and how its weights are made.

A peer lives in FOLDER/NAME, where install_peers.sh puts it; its weights go to FOLDER/models.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Command = list[str]
NONE = "Penstock bf16"
INT8 = "Penstock int8"
INT4 = "Penstock int4"


@dataclass(frozen=True, slots=True)
class Place:
    """Where things lie for one shape."""

    peers: Path
    checkpoint: Path

    def program(self, peer: str, name: str = "python") -> str:
        return str(self.peers / peer / "bin" / name)

    def model(self, kind: str) -> str:
        return str(self.peers / "models" / f"{self.checkpoint.name}-{kind}")

    @property
    def source(self) -> str:
        return str(self.checkpoint)


@dataclass(frozen=True, slots=True)
class Engine:
    name: str
    """with the precision, as tables show it"""
    peer: str
    """its folder; empty: Penstock itself"""
    bits: int
    """of most weights: 4, 8 or 16"""
    arithmetic: str
    """whose matrix rate is its limit: bf16 or int8"""
    bytes_per_weight: tuple[float, float]
    """of the layers and of the head, scales included: what a token reads"""
    works: dict[str, str]
    """by shape, separated by spaces"""
    command: Callable[[Place], Command]
    model: Callable[[Place], str] = lambda place: place.source
    """what it loads"""
    prepare: Callable[[Place], list[Command]] = lambda place: []
    """makes that, where it is not there"""

    def installed(self, peers: Path) -> bool:
        return not self.peer or (peers / self.peer / ".complete").exists()


def module(python: str, name: str, *arguments: str) -> Command:
    return [python, "-m", f"benchmarks.cpu.{name}", *arguments]


def _penstock(quantization: str) -> Callable[[Place], Command]:
    return lambda place: module(
        sys.executable, "peers.penstock_engine", place.source, "--quantization", quantization
    )


def _vllm(model: Callable[[Place], str]) -> Callable[[Place], Command]:
    return lambda place: module(place.program("vllm"), "peers.vllm_cpu", model(place))


def _openvino(kind: str) -> dict[str, Callable[[Place], object]]:
    def export(place: Place) -> list[Command]:
        tool = place.program("openvino", "optimum-cli")
        flags = ["--task", "text-generation-with-past", "--weight-format", kind]
        return [[tool, "export", "openvino", "--model", place.source, *flags, model(place)]]

    def model(place: Place) -> str:
        return place.model(f"openvino-{kind}")

    def command(place: Place) -> Command:
        return module(place.program("openvino"), "peers.openvino_genai", model(place))

    return {"model": model, "prepare": export, "command": command}


def _llamacpp(kind: str) -> dict[str, Callable[[Place], object]]:
    def model(place: Place) -> str:
        return place.model(f"{kind}.gguf")

    def convert(place: Place) -> list[Command]:
        build, wide = place.peers / "llamacpp" / "build", place.model("BF16.gguf")
        sources = next((place.peers / "llamacpp").glob("llama_cpp_python-*/vendor/llama.cpp"))
        converter = [place.program("llamacpp"), "-m", "benchmarks.cpu.gguf"]
        commands = [] if Path(wide).exists() else [[*converter, str(sources), place.source, wide]]
        if kind != "BF16":
            commands.append([str(build / "bin" / "llama-quantize"), wide, model(place), kind])
        return commands

    def command(place: Place) -> Command:
        server = str(place.peers / "llamacpp" / "build" / "bin" / "llama-server")
        python = place.program("llamacpp")
        return module(python, "peers.llamacpp", model(place), "--program", server)

    return {"model": model, "prepare": convert, "command": command}


def _w8a8(place: Place) -> str:
    return place.model("w8a8")


def _onnx(place: Place) -> str:
    return place.model("onnx-int4")


def _build_onnx(place: Place) -> list[Command]:
    builder = [place.program("onnxruntime"), "-m", "onnxruntime_genai.models.builder"]
    flags = ["-p", "int4", "-e", "cpu", "-c", str(place.peers / "models" / "cache")]
    options = ["--extra_options", "int4_accuracy_level=4"]
    return [[*builder, "-i", place.source, "-o", _onnx(place), *flags, *options]]


def _all(l135: str, q06: str) -> dict[str, str]:
    return {"l135": l135, "q06": q06, "tiny": l135}


ENGINES = [
    Engine(NONE, "", 16, "bf16", (2, 2), _all("A B", "A B"), _penstock("none")),
    Engine(
        INT8, "", 8, "int8", (1.004, 1.004), _all("A B C Dcold Dwarm H", "A B C H"),
        _penstock("int8"),
    ),
    Engine(INT4, "", 4, "int8", (0.5625, 1.004), _all("A", "A"), _penstock("int4")),
    Engine(
        "vLLM bf16", "vllm", 16, "bf16", (2, 2), _all("A B Dwarm", "A B"),
        _vllm(lambda place: place.source),
    ),
    Engine(
        "vLLM w8a8", "vllm", 8, "int8", (1.004, 2), _all("A B C Dcold Dwarm", "A B C"),
        _vllm(_w8a8), _w8a8,
        lambda place: [module(sys.executable, "w8a8", place.source, _w8a8(place))],
    ),
    Engine(
        "OpenVINO bf16", "openvino", 16, "bf16", (2, 2), _all("A B C Dwarm", "A B"),
        **_openvino("fp16"),  # type: ignore[arg-type]
    ),
    Engine(
        "OpenVINO int8", "openvino", 8, "int8", (1.004, 1.004),
        _all("A B C Dcold Dwarm", "A B C"), **_openvino("int8"),  # type: ignore[arg-type]
    ),
    Engine(
        "llama.cpp Q8_0", "llamacpp", 8, "int8", (1.0625, 1.0625), _all("A", "A"),
        **_llamacpp("Q8_0"),  # type: ignore[arg-type]
    ),
    Engine(
        "llama.cpp Q4_0", "llamacpp", 4, "int8", (0.5625, 0.82), _all("A", "A"),
        **_llamacpp("Q4_0"),  # type: ignore[arg-type]
    ),
    Engine(
        "llama.cpp BF16", "llamacpp", 16, "bf16", (2, 2), _all("A", "A"),
        **_llamacpp("BF16"),  # type: ignore[arg-type]
    ),
    Engine(
        "ONNX Runtime int4", "onnxruntime", 4, "int8", (0.53, 1), _all("A", "A"),
        lambda place: module(place.program("onnxruntime"), "peers.onnxruntime_genai", _onnx(place)),
        _onnx, _build_onnx,
    ),
    Engine(
        "transformers bf16", "transformers", 16, "bf16", (2, 2), _all("A B", "A B"),
        lambda place: module(
            place.program("transformers"), "peers.transformers_generate", place.source
        ),
    ),
]  # fmt: skip
BY_NAME = {engine.name: engine for engine in ENGINES}
