"""Loading, and every way in which a checkpoint can be broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from penstock.attention.torch_reference import TorchReference
from penstock.engine.kv import available_bytes
from penstock.engine.weights import load_model
from penstock.errors import CheckpointError, ConfigError, UnknownArchitectureError, UnsupportedError
from penstock.models.base import CausalLM

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "intermediate_size": 12,
    "vocab_size": 20,
    "max_position_embeddings": 64,
    "torch_dtype": "float32",
}
CPU = torch.device("cpu")
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def tensors() -> dict[str, Tensor]:
    layer = "model.layers.0"
    sizes = {
        "model.embed_tokens": (20, 8),
        f"{layer}.input_layernorm": (8,),
        f"{layer}.post_attention_layernorm": (8,),
        f"{layer}.mlp.gate_proj": (12, 8),
        f"{layer}.mlp.up_proj": (12, 8),
        f"{layer}.mlp.down_proj": (8, 12),
        "model.norm": (8,),
        "lm_head": (20, 8),
    }
    sizes |= {f"{layer}.self_attn.{p}_proj": (8, 8) for p in "qkvo"}
    return {f"{name}.weight": torch.randn(size) for name, size in sizes.items()}


def write(path: Path, weights: dict[str, Tensor], **fields: Any) -> None:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(CONFIG | fields))
    save_file(weights, path / WEIGHTS)


def shard(path: Path) -> None:
    """Turn the single file into two with an index."""
    weights = load_file(path / WEIGHTS)
    (path / WEIGHTS).unlink()
    weight_map = {}
    for i, name in enumerate(sorted(weights)):
        weight_map[name] = f"model-{i % 2 + 1:05}-of-00002.safetensors"
    for file in set(weight_map.values()):
        part = {name: weights[name] for name, where in weight_map.items() if where == file}
        save_file(part, path / file)
    (path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def load(path: Path, dtype: torch.dtype = torch.float32) -> CausalLM:
    return load_model(path, dtype, CPU, TorchReference())


def held(model: CausalLM) -> dict[str, Tensor]:
    return {name: target.into for name, target in model.targets().items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "model", tensors())
    return tmp_path / "model"


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_tensor_arrives(path: Path, sharded: bool, dtype: torch.dtype) -> None:
    weights = load_file(path / WEIGHTS)
    if sharded:
        shard(path)
    loaded = held(load(path, dtype))
    assert set(loaded) == set(weights)
    for name, weight in weights.items():
        assert torch.equal(loaded[name], weight.to(dtype)), name


def test_index_wins_over_a_stray_single_file(path: Path) -> None:
    shard(path)
    save_file({"stray": torch.zeros(1)}, path / WEIGHTS)
    load(path)


def test_spare_tensors_are_left_out(tmp_path: Path) -> None:
    frequencies = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}
    write(tmp_path, tensors() | frequencies, tie_word_embeddings=True)
    assert "lm_head.weight" not in held(load(tmp_path))


def drop(name: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        weights = load_file(path / WEIGHTS)
        del weights[name]
        save_file(weights, path / WEIGHTS)

    return change


def put(name: str, tensor: Tensor) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        save_file(load_file(path / WEIGHTS) | {name: tensor}, path / WEIGHTS)

    return change


def truncate(path: Path) -> None:
    data = (path / WEIGHTS).read_bytes()
    (path / WEIGHTS).write_bytes(data[: len(data) // 2])


def only_header_bytes(path: Path) -> None:
    (path / WEIGHTS).write_bytes(b"\x08\x00")


def lose_a_shard(path: Path) -> None:
    shard(path)
    (path / "model-00002-of-00002.safetensors").unlink()


def shard_lacks_a_tensor(path: Path) -> None:
    shard(path)
    file = path / "model-00001-of-00002.safetensors"
    weights = load_file(file)
    weights.pop(sorted(weights)[0])
    save_file(weights, file)


def empty_index(path: Path) -> None:
    (path / INDEX).write_text("{}")


def no_weights(path: Path) -> None:
    (path / WEIGHTS).unlink()


def pickled(path: Path) -> None:
    (path / WEIGHTS).rename(path / "pytorch_model.bin")


def no_config(path: Path) -> None:
    (path / "config.json").unlink()


def broken_config(path: Path) -> None:
    (path / "config.json").write_text('{"architectures": [')


def list_config(path: Path) -> None:
    (path / "config.json").write_text("[]")


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (drop("model.norm.weight"), "lacks 1 tensors: model.norm.weight"),
        (drop("lm_head.weight"), "lm_head.weight"),
        (put("model.layers.1.mlp.up_proj.weight", torch.zeros(12, 8)), "no place for"),
        (put("lm_head.weight", torch.zeros(21, 8)), r"shape \(21, 8\).*\(20, 8\)"),
        (truncate, "damaged or incomplete"),
        (only_header_bytes, "damaged or incomplete"),
        (lose_a_shard, "model-00002-of-00002.safetensors is missing"),
        (shard_lacks_a_tensor, "lacks the tensor 'lm_head.weight'"),
        (empty_index, "no weight_map"),
        (no_weights, "no weights"),
        (pickled, "pickle"),
        (no_config, "config.json is missing"),
        (broken_config, "cannot be read"),
        (list_config, "not a JSON object"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_checkpoint_says_what_is_wrong_and_what_to_do(
    path: Path, damage: Callable[[Path], None], cause: str
) -> None:
    damage(path)
    with pytest.raises(CheckpointError, match=cause) as caught:
        load(path)
    assert caught.value.cure


def test_a_model_larger_than_memory_is_refused_before_it_is_filled(path: Path) -> None:
    """The table alone would fit; with its head it does not."""
    rows = available_bytes(torch.device("cpu")) * 6 // 10 // (CONFIG["hidden_size"] * 4)
    write(path, tensors(), vocab_size=rows, tie_word_embeddings=False)
    with pytest.raises(ConfigError, match=r"weights need (more than there is|\d+\.\d GiB)"):
        load(path)


def test_a_model_that_no_machine_holds_is_refused(path: Path) -> None:
    write(path, tensors(), vocab_size=10**12)
    with pytest.raises(ConfigError, match="weights need more than there is"):
        load(path)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a folder"):
        load(tmp_path / "nowhere")


def test_an_unknown_architecture_lists_the_known_ones(path: Path) -> None:
    write(path, tensors(), architectures=["GPT2LMHeadModel"])
    with pytest.raises(UnknownArchitectureError, match=r"GPT2LMHeadModel.*LlamaForCausalLM"):
        load(path)


@pytest.mark.parametrize("names", [[], ["LlamaForCausalLM", "Qwen2ForCausalLM"]])
def test_one_architecture_must_be_named(path: Path, names: list[str]) -> None:
    write(path, tensors(), architectures=names)
    with pytest.raises(CheckpointError, match="exactly one architecture"):
        load(path)


def test_quantized_checkpoints_are_refused_by_name(path: Path) -> None:
    write(path, tensors(), quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(UnsupportedError, match="gptq"):
        load(path)


def test_quantized_tensors_are_refused_by_name(path: Path) -> None:
    put("lm_head.weight", torch.zeros(20, 8, dtype=torch.int8))(path)
    with pytest.raises(UnsupportedError, match=r"lm_head.weight is stored as torch.int8"):
        load(path)
