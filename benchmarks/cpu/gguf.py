"""A checkpoint to GGUF by llama.cpp's own converter, in llama.cpp's environment.

    python -m benchmarks.cpu.gguf LLAMA_CPP CHECKPOINT OUT.gguf

The converter knows tokenizers by the hash of what they make of a text; ours is told to be GPT-2's,
which it resembles. Nothing here depends on it: prompts are token ids.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from pathlib import Path


def main() -> None:
    sources, checkpoint, out = sys.argv[1:]
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    sys.path[:0] = [sources, str(Path(sources) / "gguf-py")]
    base = importlib.import_module("conversion.base")
    base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
    script = str(Path(sources) / "convert_hf_to_gguf.py")
    sys.argv = [script, checkpoint, "--outfile", out, "--outtype", "bf16"]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
