"""Any decoder-only architecture that transformers has: its modelling code with our paged attention.

transformers lets a model's attention be replaced by name. Ours writes keys and values to our cache
and attends over block tables, so that such a model gets batching, paging and prefix caching: a
step's rows are packed as one sequence, whose tokens know their positions. The library is imported
when such a model is chosen, and never otherwise (extra `any`).

Nobody can vouch for modelling code that we have not read, so a model must prove itself when it is
loaded: two sequences in chunks through our attention, against its own attention on whole ones.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penstock.attention.base import AttentionBackend, AttnBatch, GroupTables
from penstock.core.plan import KVGroup
from penstock.errors import CheckpointError, UnknownArchitectureError, UnsupportedError
from penstock.layers.targets import Target, Targets
from penstock.models.config_json import ConfigJson
from penstock.parallel.ranks import RankGroup
from penstock.quant.base import LinearFormat
from penstock.registry import ARCHITECTURES

NAME = "penstock"
"""of our attention, in transformers' registry"""
OURS = "Use an architecture that this version has a file for, or another server."
BY_LENGTH = ("dynamic", "longrope")
"""rope types whose frequencies transformers changes with the longest sequence of a batch"""


def read(config: ConfigJson) -> AnyPlan:
    """Raises UnknownArchitectureError and UnsupportedError."""
    if find_spec("transformers") is None:
        raise UnsupportedError(
            "--model-impl any needs transformers.", cure="Install the extra: penstock[any]."
        )
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    name = str(config.take("architectures", list)[0])
    kind = config.take("model_type", str)
    if MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind) != name:
        code = " with code of its own, which is not run" if "auto_map" in config.raw else ""
        raise UnknownArchitectureError(
            f"{config.where}: neither Penstock nor transformers has the architecture {name} "
            f"({kind}){code}.",
            cure=f"Known here: {', '.join(ARCHITECTURES.names)}.",
        )
    _check_ropes(config)
    for field in ("attention_chunk_size", "use_bidirectional_attention"):
        if config.raw.get(field):
            raise _refused(config.where, f"{field} is not supported")
    kinds = set(config.take("layer_types", list, [])) - {"full_attention", "sliding_attention"}
    if kinds:
        raise _refused(config.where, f"layers of type {', '.join(sorted(map(str, kinds)))}")
    return AnyPlan(config.raw, config.where)


def _check_ropes(config: ConfigJson) -> None:
    def kinds(value: object) -> Iterator[object]:
        if isinstance(value, dict):
            yield value.get("rope_type", value.get("type"))
            for inner in value.values():
                yield from kinds(inner)

    for name in ("rope_parameters", "rope_scaling"):
        for kind in kinds(config.raw.get(name)):
            if kind in BY_LENGTH:
                raise _refused(
                    config.where,
                    f"with the rope type {kind} an answer would depend on the lengths of others",
                )


def _refused(where: str, why: str) -> UnsupportedError:
    return UnsupportedError(f"{where}: transformers' model cannot be served: {why}.", cure=OURS)


@dataclass(frozen=True, slots=True)
class AnyPlan:
    """What `read` understood: see ModelPlan."""

    raw: dict[str, Any]
    where: str

    def build(
        self,
        dtype: torch.dtype,
        device: torch.device,
        backend: AttentionBackend,
        format: LinearFormat,
        ranks: RankGroup,
    ) -> AnyModel:
        """A model that has to `load` itself. Raises UnsupportedError."""
        if ranks.size > 1 or ranks.stage.count > 1:
            raise _refused(self.where, "it cannot be shared by several processes")
        if format.name != "none":
            raise _refused(self.where, f"--quantization {format.name} does not know its layers")
        return AnyModel(self.where, dtype, device, backend)


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one layer asks our attention for."""

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    scale: float
    window: int
    softcap: float


@dataclass(slots=True)
class Step:
    """What attention needs to know of the forward pass that is under way."""

    caches: list[Tensor]
    batch: AttnBatch
    groups: list[int]
    """by layer"""


class Host:
    """Sits on each attention module of one model, and links it with our backend."""

    def __init__(self, where: str, backend: AttentionBackend) -> None:
        self.where = where
        self.backend = backend
        self.seen: dict[int, LayerShape] = {}
        self.step: Step | None = None
        """None: only find out what the layers ask for"""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, shape: LayerShape) -> Tensor:
        """q [tokens, heads, head_dim], k and v [tokens, kv_heads, head_dim] -> as q."""
        if self.step is None:
            if layer in self.seen:
                raise _refused(self.where, f"layer {layer} attends more than once")
            self.seen[layer] = shape
            return torch.zeros_like(q)
        if shape != self.seen[layer]:
            raise _refused(self.where, f"layer {layer} changes its attention between steps")
        step = self.step
        cache, tables = step.caches[layer], step.batch.groups[step.groups[layer]]
        self.backend.write(cache, k, v, tables)
        scale, window, softcap = shape.scale, shape.window, shape.softcap
        return self.backend.attend(q, cache, step.batch, tables, scale, window, softcap)


_IGNORED = """
    dropout is_causal position_ids use_cache output_attentions output_hidden_states return_dict
    layer_idx cache_position past_key_values layer_past head_mask deterministic position_embeddings
"""
IGNORED = frozenset(_IGNORED.split())
"""arguments of an attention function that do not change what ours computes"""


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query [1, heads, tokens, head_dim], key and value
    [1, kv_heads, tokens, head_dim] -> [1, tokens, heads, head_dim]."""
    host: Host = module.penstock  # type: ignore[assignment]
    unknown = sorted(n for n, value in others.items() if value is not None and n not in IGNORED)
    if unknown or attention_mask is not None:
        raise _refused(host.where, f"its attention wants {', '.join(unknown) or 'a mask'}")
    if not getattr(module, "is_causal", True):
        raise _refused(host.where, "its attention looks ahead")
    q, k, v = (part[0].transpose(0, 1).contiguous() for part in (query, key, value))
    shape = LayerShape(
        q.shape[1],
        k.shape[1],
        q.shape[2],
        v.shape[2],
        q.shape[2] ** -0.5 if scaling is None else float(scaling),
        sliding_window or 0,
        softcap or 0.0,
    )
    layer: int = module.layer_idx  # type: ignore[assignment]
    return host.attend(layer, q, k, v, shape)[None], None


class _Passed(nn.Module):
    """In place of the layers: hands on what is given, so that what follows them runs alone."""

    def forward(self, *_: object, inputs_embeds: Tensor, **others: object) -> Any:
        from transformers.modeling_outputs import MoeModelOutputWithPast

        return MoeModelOutputWithPast(last_hidden_state=inputs_embeds)


class AnyModel:
    """A LoadableLM that reads its checkpoint by itself."""

    kv_groups: tuple[KVGroup, ...]
    num_kv_heads: int
    head_dim: int
    hidden_size: int
    vocab_size: int
    max_positions: int

    def __init__(
        self, where: str, dtype: torch.dtype, device: torch.device, backend: AttentionBackend
    ) -> None:
        self.dtype = dtype
        self._where, self._device = where, device
        self._host = Host(where, backend)
        self._groups: list[int] = []
        self._model: Any = None
        self._head: Any = None

    def load(self, path: Path) -> None:
        """The weights of a checkpoint folder, and the proof. Raises CheckpointError and
        UnsupportedError."""
        self._model = model = self._from(path)
        prefix = model.base_model_prefix
        if not model._supports_attention_backend or model.base_model is model:
            raise _refused(self._where, "its attention cannot be replaced")
        for module in model.modules():
            if hasattr(module, "layer_idx"):
                module.penstock = self._host
        self._head = copy.copy(model)  # the same modules, but for the layers
        self._head._modules = model._modules | {prefix: _Passed()}
        config = model.config
        self.hidden_size, self.vocab_size = config.hidden_size, config.vocab_size
        self.max_positions = int(getattr(config, "max_position_embeddings", 0) or 0)
        if not self.max_positions:
            raise _refused(self._where, "its config.json does not say how long a request may be")
        try:
            with torch.inference_mode():
                self._find_out(config.num_hidden_layers)
                self._prove()
        except UnsupportedError:
            raise
        except Exception as error:  # of code that we have not read
            why = f"it fails with our attention ({type(error).__name__}: {error})"
            raise _refused(self._where, why) from error

    def _from(self, path: Path) -> Any:
        import transformers

        library: Any = transformers  # whose own types promise less than it does
        library.AttentionInterface.register(NAME, attention)
        library.logging.disable_progress_bar()
        try:
            model, info = library.AutoModelForCausalLM.from_pretrained(
                path,
                dtype=self.dtype,
                attn_implementation=NAME,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"transformers cannot read {path}: {str(error).splitlines()[0]}",
                cure="Download the checkpoint again.",
            ) from error
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if info[what]:
                first = sorted(map(str, info[what]))[0]
                raise CheckpointError(
                    f"{path}: config.json and the weights are not of the same checkpoint "
                    f"({what.replace('_', ' ')}: {first} …).",
                    cure="Download the checkpoint again.",
                )
        return model.eval().requires_grad_(False).to(self._device)

    def _find_out(self, layers: int) -> None:
        """Which attention each layer has, by one token that nobody keeps."""
        ids = torch.zeros(1, dtype=torch.int64, device=self._device)
        self._run(ids, ids)
        seen = self._host.seen
        if sorted(seen) != list(range(layers)):
            raise _refused(
                self._where, f"{len(seen)} of its {layers} layers attend; the others keep a state"
            )
        sizes = {(s.kv_heads, s.head_dim, s.value_dim) for s in seen.values()}
        self.num_kv_heads, self.head_dim, value_dim = next(iter(sizes))
        if len(sizes) > 1 or value_dim != self.head_dim:
            raise _refused(self._where, "its keys and values differ in size")
        windows = sorted({shape.window for shape in seen.values()})
        self.kv_groups = tuple(
            KVGroup(tuple(i for i in range(layers) if seen[i].window == window), window)
            for window in windows
        )
        self._groups = [windows.index(seen[i].window) for i in range(layers)]

    def _prove(self) -> None:
        """Compare logits by our attention with those by the model's own: what is wrong is wrong by
        about their size. Raises UnsupportedError."""
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, self.vocab_size, (2, 24), generator=generator).to(self._device)
        self._model.set_attn_implementation("eager")
        true = self._model(input_ids=ids, use_cache=False).logits.float()
        self._model.set_attn_implementation(NAME)
        found = self.logits(self._in_chunks(ids, [(0, 13), (13, 14), (14, 24)]).flatten(0, 1))
        distance = (found - true.flatten(0, 1)).norm()
        if not distance <= (1e-3 if self.dtype == torch.float32 else 0.2) * true.norm():
            raise _refused(self._where, "with our attention it computes something else")

    def _in_chunks(self, ids: Tensor, chunks: list[tuple[int, int]]) -> Tensor:
        """Hidden states of two sequences that grow side by side, chunk by chunk."""
        backend, device = self._host.backend, self._device
        size, rows = backend.block_sizes[0], len(ids)
        blocks = -(-ids.shape[1] // size)
        shape = (rows * blocks, size, self.num_kv_heads, self.head_dim, self.dtype, device)
        caches = [backend.allocate(*shape) for _ in self._groups]
        table = torch.arange(rows * blocks, device=device, dtype=torch.int32).view(rows, blocks)
        found = []
        for first, last in chunks:
            at = torch.arange(first, last, device=device)
            slots = (table[:, at // size].long() * size + at % size).flatten()
            count = last - first
            starts = torch.arange(rows + 1, device=device, dtype=torch.int32) * count
            lens = torch.full((rows,), last, device=device, dtype=torch.int32)
            groups = tuple(GroupTables(table, slots) for _ in self.kv_groups)
            batch = AttnBatch(starts, lens, groups, [count] * rows, [last] * rows)
            hidden = self.forward(ids[:, first:last].flatten(), at.repeat(rows), caches, batch)
            found.append(hidden.view(rows, count, -1))
        return torch.cat(found, dim=1)

    def forward(
        self, x: Tensor, positions: Tensor, caches: list[Tensor], batch: AttnBatch
    ) -> Tensor:
        """See CausalLM.forward."""
        self._host.step = Step(caches, batch, self._groups)
        return self._run(x, positions)

    def _run(self, ids: Tensor, positions: Tensor) -> Tensor:
        out = self._model.base_model(
            input_ids=ids[None], position_ids=positions[None], use_cache=False
        )
        hidden: Tensor = out.last_hidden_state[0]
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """See CausalLM.logits."""
        out = self._head(inputs_embeds=hidden[None], use_cache=False)
        logits: Tensor = out.logits[0].float()
        return logits

    def targets(self) -> Targets:
        """What is loaded; nothing before."""
        if self._model is None:
            return {}
        return {name: Target(weight) for name, weight in self._model.named_parameters()}

    def spare(self, name: str) -> bool:
        """See LoadableLM.spare; transformers decides."""
        return True
