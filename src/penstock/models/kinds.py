"""Checkpoints that are no decoder of text, told apart by their config.json before anybody reads on.

Of these a server could not write a token, or would ignore half of what they are made for.
"""

from __future__ import annotations

from penstock.errors import UnsupportedError
from penstock.models.config_json import ConfigJson

MODALITIES = {"vision": "images", "audio": "sound", "speech": "sound", "image": "images"}
HEADS = {
    "ForSequenceClassification": "classifies texts",
    "ForTokenClassification": "classifies tokens",
    "ForQuestionAnswering": "marks answers in a text",
    "ForMaskedLM": "fills gaps in a text",
    "ForMultipleChoice": "chooses among texts",
    "Model": "has no head: it makes embeddings",
}


def check_kind(config: ConfigJson, architecture: str) -> None:
    """Raise UnsupportedError with the reason for a checkpoint that is not a causal language model
    of text."""
    why = None
    for word, what in MODALITIES.items():
        if any(field in config.raw for field in (f"{word}_config", f"{word}_tower")):
            why = f"takes {what} beside text"
    if config.raw.get("is_encoder_decoder"):
        why = "is an encoder and a decoder"
    if not architecture.endswith("LMHeadModel"):
        why = why or next((w for end, w in HEADS.items() if architecture.endswith(end)), None)
    if why is not None:
        raise UnsupportedError(
            f"{config.where}: {architecture} {why}, which is not supported.",
            cure="Use a causal language model of text (most end in ForCausalLM).",
            param="architectures",
        )
