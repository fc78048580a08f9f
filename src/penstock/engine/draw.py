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
3. top_p: in the order (greater w first, then lower id) the shortest prefix with mass >= need is
   kept, where need = ceil(top_p * sum of w) in float64, at least 1 and at most the sum.
   (Nucleus sampling, Holtzman et al. 2020.)
4. min_p keeps the ids with w >= ceil(min_p * 2^40): relative to the best id, which has 2^40.
   (Nguyen et al. 2024.)
5. target = floor(u * sum of the kept w) in float64, at most the sum - 1. The token is the first
   id, in vocabulary order, at which the running sum of kept weights exceeds target.

A row without a finite maximum (a NaN, an infinity, or every id masked) cannot be drawn from; its
id is -1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

GREEDY_BELOW = 1e-5
"""temperatures below this are greedy"""
MAX_VOCAB = 2**22
"""so that 2^40 * V and a weight beside an id fit 63 bits"""

Crossing = Callable[[Tensor, Tensor], Tensor]

_SCALE = float(2**40)
_ID_BITS = 22
_BUCKETS = 41 * 128
"""weights 1 .. 2^40 by exponent and the first 7 bits after it"""


@dataclass(slots=True)
class Filters:
    """Parameters of R rows, each a tensor [R] on the logits' device."""

    inverse_temperature: Tensor
    """float64"""
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
    weights = _weights(logits, maxima, filters)
    return _invert(weights.cumsum(1), uniform)


def draw_wide(logits: Tensor, maxima: Tensor, filters: Filters, uniform: Tensor) -> Tensor:
    """As `draw_all`, for rows with top_p or min_p and without top_k."""
    weights = _weights(logits, maxima, filters)
    ids = torch.arange(logits.shape[1], device=logits.device)
    return _invert(_keep(weights, ids, filters, crossing_by_bucket).cumsum(1), uniform)


def draw_top_k(
    logits: Tensor, maxima: Tensor, filters: Filters, uniform: Tensor, k_max: int
) -> Tensor:
    """As `draw_wide`, for rows with 1 <= top_k <= k_max: only k_max candidates are weighed."""
    ids, values = top_ids(logits, k_max)
    weights = _weights(values, maxima, filters)
    places = torch.arange(k_max, device=logits.device)
    weights = torch.where(places < filters.top_k[:, None], weights, 0)
    weights = _keep(weights, ids, filters, crossing_by_sort)
    ids, order = ids.sort(dim=1)
    return ids.gather(1, _invert(weights.gather(1, order).cumsum(1), uniform)[:, None])[:, 0]


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
    inside = buckets == bucket
    counts = inside.sum(1)
    rows, columns = inside.nonzero(as_tuple=True)
    first = counts.cumsum(0) - counts
    candidates = keys.new_zeros(len(keys), int(counts.max()))
    places = torch.arange(len(rows), device=keys.device) - first[rows]
    candidates[rows, places] = keys[rows, columns]
    return crossing_by_sort(candidates, need - above[:, 0])


def _weights(values: Tensor, maxima: Tensor, filters: Filters) -> Tensor:
    """Fixed-point weights int64, shaped like `values` float32 [R, N]; step 2."""
    x = values.double().sub_(maxima.double()[:, None])
    return x.mul_(filters.inverse_temperature[:, None]).exp_().mul_(_SCALE).long()


def _keep(weights: Tensor, ids: Tensor, filters: Filters, crossing: Crossing) -> Tensor:
    """Weights with 0 for what top_p and min_p drop; steps 3 and 4. ids: int64 [N] or [R, N]."""
    keys = (weights << _ID_BITS) + (MAX_VOCAB - 1 - ids)
    total = weights.sum(1)
    need = (filters.top_p * total.double()).ceil_().long().clamp_(min=1).minimum(total)
    floor = (filters.min_p * _SCALE).ceil_().long() << _ID_BITS
    threshold = torch.maximum(crossing(keys, need), floor)
    return torch.where(keys >= threshold[:, None], weights, 0)


def _invert(running: Tensor, uniform: Tensor) -> Tensor:
    """Index int64 [R] of the first running sum (int64 [R, N]) that exceeds the target; step 5."""
    total = running[:, -1]
    target = (uniform * total.double()).long().minimum(total - 1)
    place = torch.searchsorted(running, target[:, None], right=True)
    return place[:, 0].clamp_(max=running.shape[1] - 1)
