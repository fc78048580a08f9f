"""Make random-weight checkpoints (bf16 safetensors and a byte-level tokenizer) to measure speed.

    python -m benchmarks.make_checkpoint l135 [--out benchmarks/checkpoints]

l135 has the shape of SmolLM2-135M with a context of 16,384, so that an 8k prompt fits, q06 that of
Qwen3-0.6B; tiny is for trying the scripts out. Random weights say nothing about quality and cost
the same arithmetic.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

CHECKPOINTS = Path(__file__).parent / "checkpoints"

SHAPES: dict[str, dict[str, Any]] = {
    "l135": {
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 49152,
    },
    "q06": {
        "model_type": "qwen3",
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
        "vocab_size": 151936,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
    },
    "tiny": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 512,
    },
}
COMMON: dict[str, Any] = {
    "max_position_embeddings": 16384,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e5,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def checkpoint(shape: str, folder: Path = CHECKPOINTS) -> Path:
    """The folder of a checkpoint, made on first use."""
    path = folder / shape
    if not (path / "config.json").exists():
        make(shape, path)
    return path


def make(shape: str, path: Path) -> None:
    """Norms are 1, all else is N(0, 0.02) from a fixed seed: logits stay finite and differ."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    path.mkdir(parents=True, exist_ok=True)
    _make_tokenizer(SHAPES[shape]["vocab_size"], path)
    config = AutoConfig.for_model(**{"model_type": "llama"} | COMMON | SHAPES[shape])
    model: Any = AutoModelForCausalLM.from_config(config)
    model.to(torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    model.save_pretrained(path)


def _make_tokenizer(vocab_size: int, path: Path) -> None:
    """Every byte is a token; the ids above are texts of their own, so that every id decodes. There
    is one merge, because converters of other engines expect some."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocab = {token: index for index, token in enumerate(SPECIAL)}
    for token in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocab[token] = len(vocab)
    vocab["Ġw"] = len(vocab)
    for index in range(len(vocab), vocab_size):
        vocab[f"Ġw{index}"] = index
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[("Ġ", "w")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer.save(str(path / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": SPECIAL[2],
        "chat_template": TEMPLATE,
    }
    (path / "tokenizer_config.json").write_text(json.dumps(config, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("--out", type=Path, default=CHECKPOINTS)
    arguments = parser.parse_args()
    print(checkpoint(arguments.shape, arguments.out))


if __name__ == "__main__":
    main()
