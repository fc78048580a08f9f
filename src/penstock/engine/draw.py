"""Drawing a token from adjusted logits: a deterministic function of (logits, parameters, uniform).

This docstring is the specification that any other implementation (C++, Triton) must meet. One row
has float32 logits x[0 .. V-1] (bias, masks and penalties applied), all in vocabulary order.

Greedy (temperature < 1e-5): the lowest id among those with the greatest logit.

Otherwise:
1. top_k in 1 .. V-1 keeps exactly k ids: the greatest logits, ties broken by the lower id
   (-0.0 equals 0.0). 0, or V and more, keeps all.
2. Every id gets a fixed-point weight w = floor(2^40 * exp((x - max x) * (1 / temperature))),
   computed in float64 in this order; ids that top_k dropped get 0. Integers, because their sums
   do not depend on the order of addition: a parallel scan on a GPU and a loop in C++ agree
   exactly, and so do a row alone and a row in company. Two libraries' exp may differ in the last
   bit of a double; floor hides this but for about one draw in 10^11.
   What has less than 2^-40 of the best id's probability is never drawn.
3. top_p < 1: in the order (greater w first, then lower id) the shortest prefix with mass >= need
   is kept, where need = ceil(top_p * sum of w) in float64, at least 1 and at most the sum.
   (Nucleus sampling, Holtzman et al. 2020.)
4. min_p keeps the ids with w >= ceil(min_p * 2^40): relative to the best id, which has 2^40.
   (Nguyen et al. 2024.)
5. target = floor(u * sum of the kept w) in float64, at most the sum - 1. The token is the first
   id, in vocabulary order, at which the running sum of kept weights exceeds target.

A row without a finite maximum (a NaN, an infinity, or every id masked) cannot be drawn from; its
id is -1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

GREEDY_BELOW = 1e-5
"""temperatures below this are greedy"""
MAX_VOCAB = 2**22
"""so that 2^40 * V and a weight beside an id fit 63 bits"""

_SCALE = float(2**40)
_ID_BITS = 22
_SORT_UP_TO = 4096
"""candidates a row"""
_BUCKETS = 41 * 128
"""weights 1 .. 2^40 by exponent and the first 7 bits after it"""


@dataclass(slots=True)
class Filters:
    """Parameters of R rows, each a tensor [R] on the logits' device."""

    inverse_temperature: Tensor
    """float64; 0: greedy"""
    top_k: Tensor
    """int64; 0 keeps all"""
    top_p: Tensor
    """float64"""
    min_p: Tensor
    """float64"""

    def part(self, rows: slice) -> Filters:
        """The parameters of some of the rows."""
        return Filters(
            self.inverse_temperature[rows], self.top_k[rows], self.top_p[rows], self.min_p[rows]
        )


def greedy(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Maxima [R] (NaN where a row has one) and the lowest ids [R] that reach them."""
    maxima, ids = logits.max(dim=1)
    return maxima, ids


def draw_all(logits: Tensor, maxima: Tensor, filters: Filters, uniform: Tensor) -> Tensor:
    """Ids int64 [R] for rows without any filter. logits float32 [R, V], uniform float64 [R]."""
    return _invert(_weights(logits, maxima, filters), uniform)


def draw_wide(logits: Tensor, maxima: Tensor, filters: Filters, uniform: Tensor) -> Tensor:
    """As `draw_all`, for rows with top_p or min_p and without top_k."""
    weights = _weights(logits, maxima, filters)
    total, vocab = weights.sum(1), weights.shape[1]
    need = _need(filters, total)
    # All ids with w <= (total - need) / V weigh total - need or less together, so that the rest
    # already has the mass that is needed: only the rest can be kept.
    least = torch.maximum((total - need) // vocab + 1, _floor(filters))
    ids, weights = _compact(weights, weights >= least[:, None])
    return _draw_among(ids, weights, need, filters, uniform)


def draw_top_k(
    logits: Tensor, maxima: Tensor, filters: Filters, uniform: Tensor, k_max: int
) -> Tensor:
    """As `draw_wide`, for rows with 1 <= top_k <= k_max: only k_max candidates are weighed."""
    ids, values = top_ids(logits, k_max)
    weights = _weights(values, maxima, filters)
    places = torch.arange(k_max, device=logits.device)
    weights = torch.where(places < filters.top_k[:, None], weights, 0)
    ids, order = ids.sort(dim=1)
    need = _need(filters, weights.sum(1))
    return _draw_among(ids, weights.gather(1, order), need, filters, uniform)


def top_ids(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k greatest of each row of float32 [R, V], best first, ties by lower id.

    Returns ids int64 [R, k] and their values float32 [R, k].
    """
    vocab = values.shape[1]
    bits = (values + 0.0).view(torch.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    reversed_ids = torch.arange(vocab - 1, -1, -1, device=values.device)
    keys = (ordered.long() << 32) + reversed_ids
    ids = (vocab - 1) - (keys.topk(k, dim=1).values & 0xFFFFFFFF)
    return ids, values.gather(1, ids)


def crossing_by_sort(keys: Tensor, need: Tensor) -> Tensor:
    """The key [R] at which the running mass reaches `need` [R], keys in descending order.

    keys: int64 [R, N], a weight above the 22 low bits each, all different.
    """
    ordered = keys.sort(dim=1, descending=True).values
    mass = (ordered >> _ID_BITS).cumsum(1)
    place = torch.searchsorted(mass, need[:, None]).clamp_(max=keys.shape[1] - 1)
    return ordered.gather(1, place)[:, 0]


def crossing_by_bucket(keys: Tensor, need: Tensor) -> Tensor:
    """The same as `crossing_by_sort` without sorting N keys.

    A histogram of mass over weights (exponent and 7 bits) finds the bucket in which the running
    mass reaches `need`; only this bucket's few keys are sorted.
    """
    weights = keys >> _ID_BITS
    buckets = (weights.double().view(torch.int64) >> 45) - (1023 << 7)
    buckets = buckets.clamp_(0, _BUCKETS - 1)
    masses = keys.new_zeros(len(keys), _BUCKETS).scatter_add_(1, buckets, weights)
    from_top = masses.flip(1).cumsum(1)
    place = torch.searchsorted(from_top, need[:, None]).clamp_(max=_BUCKETS - 1)
    bucket = _BUCKETS - 1 - place
    above = from_top.gather(1, place) - masses.gather(1, bucket)
    _, candidates = _compact(keys, buckets == bucket)
    return crossing_by_sort(candidates, need - above[:, 0])


def _weights(values: Tensor, maxima: Tensor, filters: Filters) -> Tensor:
    """Fixed-point weights int64, shaped like `values` float32 [R, N]; step 2."""
    x = values.double().sub_(maxima.double()[:, None])
    return x.mul_(filters.inverse_temperature[:, None]).exp_().mul_(_SCALE).long()


def _need(filters: Filters, total: Tensor) -> Tensor:
    """Mass int64 [R] that top_p keeps of `total` int64 [R]; step 3."""
    part = (filters.top_p * total.double()).ceil_().long().clamp_(min=1)
    return torch.where(filters.top_p < 1, part.minimum(total), total)


def _floor(filters: Filters) -> Tensor:
    """Least weight int64 [R] that min_p keeps; step 4."""
    return (filters.min_p * _SCALE).ceil_().long()


def _draw_among(
    ids: Tensor, weights: Tensor, need: Tensor, filters: Filters, uniform: Tensor
) -> Tensor:
    """Steps 3 to 5 among candidates in vocabulary order: ids and weights int64 [R, N]."""
    keys = (weights << _ID_BITS) + (MAX_VOCAB - 1 - ids)
    crossing = crossing_by_sort if keys.shape[1] <= _SORT_UP_TO else crossing_by_bucket
    kept = (keys >= crossing(keys, need)[:, None]) & (weights >= _floor(filters)[:, None])
    place = _invert(torch.where(kept, weights, 0), uniform)
    return ids.gather(1, place[:, None])[:, 0]


def _compact(values: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Columns and values int64 [R, N] where `chosen` [R, V]; rows end in column 0, value 0."""
    rows, columns = chosen.nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=len(values))
    first = counts.cumsum(0) - counts
    places = torch.arange(len(rows), device=values.device) - first[rows]
    out = values.new_zeros(2, len(values), max(1, int(counts.max())))
    out[0, rows, places] = columns
    out[1, rows, places] = values[rows, columns]
    return out[0], out[1]


def _invert(weights: Tensor, uniform: Tensor) -> Tensor:
    """Index int64 [R] of the first running sum of weights [R, N] above the target; step 5."""
    running = weights.cumsum(1)
    total = running[:, -1]
    target = (uniform * total.double()).long().minimum(total - 1)
    place = torch.searchsorted(running, target[:, None], right=True)
    return place[:, 0].clamp_(max=running.shape[1] - 1)
