"""config.json, read field by field; what nobody read and nobody knows is refused.

A field that we do not know may change the answer, so it is an error that names it. Known to be
harmless are the fields of training, of generation defaults and of transformers' own bookkeeping
(HARMLESS), and unknown fields that are null, false, 0 or empty.
"""

from __future__ import annotations

from typing import Any, TypeVar

from penstock.errors import CheckpointError, UnsupportedError

T = TypeVar("T")

_HARMLESS = """
    architectures model_type transformers_version auto_map name_or_path
    torch_dtype dtype use_cache return_dict output_attentions output_hidden_states torchscript
    use_bfloat16 tf_legacy_loss chunk_size_feed_forward problem_type prefix attn_implementation
    attention_dropout hidden_dropout embd_dropout resid_dropout embd_pdrop resid_pdrop
    attn_pdrop classifier_dropout initializer_range initializer_factor pretraining_tp
    bos_token_id eos_token_id pad_token_id unk_token_id sep_token_id decoder_start_token_id
    forced_bos_token_id forced_eos_token_id suppress_tokens begin_suppress_tokens
    id2label label2id num_labels finetuning_task task_specific_params tokenizer_class
    max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty
    temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size
    encoder_no_repeat_ngram_size bad_words_ids num_return_sequences remove_invalid_values
    exponential_decay_length_penalty output_scores return_dict_in_generate
    is_matryoshka matryoshka_dimensions
    is_llama_config max_sequence_length model_max_length
"""
HARMLESS = frozenset(_HARMLESS.split())
HARMLESS_PREFIXES = ("_", "unsloth", "transformers.js")


class ConfigJson:
    """A config.json in hand. Every read checks the type and remembers the name."""

    def __init__(
        self, raw: dict[str, Any], where: str = "config.json", longest: int | None = None
    ) -> None:
        """longest: tokens of the longest request that the model will get (None: as many as it can
        take); some families choose frequencies by it."""
        self.longest = longest
        self.raw = raw
        self.where = where
        self._read: set[str] = set()

    def take(self, name: str, kind: type[T] | tuple[type[T], ...], default: T | None = None) -> T:
        """The value of a field, or the default where it is missing or null.

        Raises CheckpointError when it is missing without a default or of a wrong type.
        """
        self._read.add(name)
        value = self.raw.get(name)
        if value is None:
            if default is None:
                raise CheckpointError(
                    f"{self.where} has no {name!r}.",
                    cure="The checkpoint is incomplete: download it again.",
                    param=name,
                )
            return default
        wrong = isinstance(value, bool) and kind is not bool
        if wrong or not isinstance(value, kind):
            raise CheckpointError(f"{self.where}: {name!r} has the value {value!r}.", param=name)
        return value

    def size(self, name: str, default: int | None = None) -> int:
        """A positive whole number."""
        value = self.take(name, int, default)
        if value <= 0:
            raise CheckpointError(
                f"{self.where}: {name!r} must be positive, not {value}.", param=name
            )
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A whole or broken number of 0 or more, as float."""
        value = float(self.take(name, (int, float), default))
        if not 0 <= value < float("inf"):
            raise CheckpointError(f"{self.where}: {name!r} must not be {value}.", param=name)
        return value

    def flag(self, name: str, default: bool) -> bool:
        return self.take(name, bool, default)

    def finish(self, known: frozenset[str] = HARMLESS) -> None:
        """Refuse (UnsupportedError) fields that nobody read and that might change the answer."""
        for name, value in self.raw.items():
            if name in self._read or name in known or name.startswith(HARMLESS_PREFIXES):
                continue
            if value:
                raise UnsupportedError(
                    f"{self.where}: the field {name!r} = {value!r} is not supported and might "
                    "change the model's answers.",
                    cure="If it does not, remove the field from the file.",
                    param=name,
                )
