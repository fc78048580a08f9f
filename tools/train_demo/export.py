"""Writes a trained model as the folder that transformers and Penstock load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from model import Qwen3
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

HERE = Path(__file__).resolve().parent


def export_model(model: Qwen3, tokenizer: Path, out: Path) -> None:
    """config.json, bfloat16 weights and the tokenizer's files."""
    out.mkdir(parents=True, exist_ok=True)
    tok = Tokenizer.from_file(str(tokenizer))
    end, stop = tok.token_to_id("<|endoftext|>"), tok.token_to_id("<|im_end|>")
    write_json(out / "config.json", model.s.config([stop, end], end))
    weights = {
        f"model.{k}": v.to(torch.bfloat16).contiguous() for k, v in model.state_dict().items()
    }
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    template = (HERE / "chat_template.jinja").read_text()
    shutil.copyfile(tokenizer, out / "tokenizer.json")
    shutil.copyfile(HERE / "chat_template.jinja", out / "chat_template.jinja")
    write_json(
        out / "generation_config.json",
        {
            "eos_token_id": [stop, end],
            "pad_token_id": end,
            "do_sample": True,
            "temperature": 0.8,
            "top_p": 1.0,
            "max_new_tokens": 512,
        },
    )
    added = json.loads(tokenizer.read_text())["added_tokens"]
    keys = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    write_json(
        out / "tokenizer_config.json",
        {
            "added_tokens_decoder": {str(t["id"]): {k: t[k] for k in keys} for t in added},
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
            "model_max_length": model.s.max_position_embeddings,
            "clean_up_tokenization_spaces": False,
            "chat_template": template,
        },
    )


def exported_weights(folder: Path) -> dict[str, Tensor]:
    """The state of a `Qwen3` from what `export_model` wrote."""
    weights = load_file(folder / "model.safetensors")
    return {name.removeprefix("model."): tensor.float() for name, tensor in weights.items()}


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
