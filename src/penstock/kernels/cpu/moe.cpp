#include "moe.h"

#include <cmath>

namespace penstock {
namespace {

int begin(int total, const Team& team) { return int(int64_t(total) * team.rank / team.size); }
int end(int total, const Team& team) { return int(int64_t(total) * (team.rank + 1) / team.size); }

// The top_k greatest, falling, equal ones by number. A NaN loses every comparison, so that any row
// gets top_k different experts, and its weights tell.
void choose(const float* logits, int experts, int top_k, int32_t* chosen) {
  int count = 0;
  for (int e = 0; e < experts; ++e) {
    int at = count < top_k ? count++ : top_k;
    for (; at > 0 && logits[e] > logits[chosen[at - 1]]; --at) {
      if (at < top_k) chosen[at] = chosen[at - 1];
    }
    if (at < top_k) chosen[at] = e;
  }
}

void weigh_row(const float* logits, const RouteArgs& p, const int32_t* chosen, float* weights) {
  const float top = logits[chosen[0]];
  float sum = 0;
  if (!p.normalised) {
    for (int e = 0; e < p.experts; ++e) sum += std::exp(logits[e] - top);
  }
  for (int j = 0; j < p.top_k; ++j) {
    weights[j] = std::exp(logits[chosen[j]] - top);
    if (p.normalised) sum += weights[j];
  }
  for (int j = 0; j < p.top_k; ++j) weights[j] /= sum;
}

// Places hold experts until here: a counting sort, rows in their order.
void sort_pairs(const RouteArgs& p) {
  const Routing& to = p.to;
  const int pairs = p.rows * p.top_k;
  for (int e = 0; e <= p.experts; ++e) to.starts[e] = 0;
  for (int i = 0; i < pairs; ++i) ++to.starts[to.places[i] + 1];
  for (int e = 0; e < p.experts; ++e) to.starts[e + 1] += to.starts[e];
  for (int i = 0; i < pairs; ++i) {
    const int place = to.starts[to.places[i]]++;
    to.tokens[place] = i / p.top_k;
    to.places[i] = place;
  }
  for (int e = p.experts; e > 0; --e) to.starts[e] = to.starts[e - 1];
  to.starts[0] = 0;
}

}  // namespace

void route(const RouteArgs& p, Team& team) {
  for (int row = begin(p.rows, team); row < end(p.rows, team); ++row) {
    const float* logits = p.logits + int64_t(row) * p.experts;
    int32_t* chosen = p.to.places + int64_t(row) * p.top_k;
    choose(logits, p.experts, p.top_k, chosen);
    weigh_row(logits, p, chosen, p.to.weights + int64_t(row) * p.top_k);
  }
  team.barrier();
  if (team.rank == 0) sort_pairs(p);
}

void combine(const CombineArgs& p, Team& team) {
  for (int row = begin(p.rows, team); row < end(p.rows, team); ++row) {
    const int64_t pair = int64_t(row) * p.top_k;
    float* out = p.out + int64_t(row) * p.size;
    for (int j = 0; j < p.top_k; ++j) {
      const float weight = p.from.weights[pair + j] * p.scale;
      const float* x = p.x + int64_t(p.from.places[pair + j]) * p.size;
      if (j == 0 && !p.add) {
        for (int i = 0; i < p.size; ++i) out[i] = weight * x[i];
      } else {
        for (int i = 0; i < p.size; ++i) out[i] += weight * x[i];
      }
    }
  }
}

}  // namespace penstock
