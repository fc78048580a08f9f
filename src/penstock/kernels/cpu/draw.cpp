#include "draw.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

namespace penstock {
namespace {

constexpr int kIdBits = 22;
constexpr int64_t kMaxVocab = int64_t(1) << kIdBits;
constexpr double kScale = 1099511627776.0;  // 2^40
constexpr int kChunk = 1024;                // weights that are made at a time
constexpr int kSpan = 64;                   // logits whose maximum bounds the k-th greatest

struct Row {
  const Isa& isa;
  const float* x;
  int vocab;
  double top;
  double inverse_temperature;
  double top_p, min_p, uniform;
  int64_t* keys;
};

// A weight above, the id reversed below: greater is earlier in the order of top_p.
int64_t key_of(int64_t weight, int64_t id) { return (weight << kIdBits) + (kMaxVocab - 1 - id); }
int64_t weight_of(int64_t key) { return key >> kIdBits; }
int64_t id_of(int64_t key) { return kMaxVocab - 1 - (key & (kMaxVocab - 1)); }

int64_t target_of(double uniform, int64_t total) {
  return std::min(int64_t(uniform * double(total)), total - 1);
}

template <class Visit>
void each_chunk(const Row& row, Visit visit) {
  int64_t weights[kChunk];
  for (int first = 0; first < row.vocab; first += kChunk) {
    const int n = std::min(kChunk, row.vocab - first);
    const int64_t sum =
        row.isa.weigh(row.x + first, n, row.top, row.inverse_temperature, weights);
    if (!visit(first, n, weights, sum)) return;
  }
}

int64_t total_of(const Row& row) {
  int64_t total = 0;
  each_chunk(row, [&](int, int, const int64_t*, int64_t sum) {
    total += sum;
    return true;
  });
  return total;
}

// No filter: the weights are made a second time rather than kept.
int64_t draw_all(const Row& row) {
  int64_t left = target_of(row.uniform, total_of(row));
  int64_t id = row.vocab - 1;
  each_chunk(row, [&](int first, int n, const int64_t* weights, int64_t sum) {
    if (sum <= left) {
      left -= sum;
      return true;
    }
    int i = 0;
    while (i + 1 < n && weights[i] <= left) left -= weights[i++];
    id = first + i;
    return false;
  });
  return id;
}

// The key at which the running mass, greatest first, reaches `need`. Reorders the keys.
int64_t crossing(int64_t* keys, int64_t count, int64_t need) {
  int64_t* first = keys;
  int64_t* last = keys + count;
  while (last - first > 1) {
    int64_t* middle = first + (last - first) / 2;
    std::nth_element(first, middle, last, std::greater<>());
    int64_t mass = 0;
    for (int64_t* key = first; key != middle; ++key) mass += weight_of(*key);
    if (mass >= need) {
      last = middle;
    } else {
      need -= mass;
      first = middle;
    }
  }
  return *first;
}

int64_t floor_of(const Row& row) { return int64_t(std::ceil(row.min_p * kScale)); }

int64_t need_of(const Row& row, int64_t total) {
  if (row.top_p >= 1) return total;
  const auto part = int64_t(std::ceil(row.top_p * double(total)));
  return std::min(std::max(part, int64_t(1)), total);
}

// Steps 3 to 5 among `count` keys.
int64_t draw_among(const Row& row, int64_t count, int64_t need) {
  int64_t* const keys = row.keys;
  const int64_t least = std::max(crossing(keys, count, need), floor_of(row) << kIdBits);
  int64_t* const end =
      std::partition(keys, keys + count, [&](int64_t key) { return key >= least; });
  std::sort(keys, end, [](int64_t a, int64_t b) { return id_of(a) < id_of(b); });
  int64_t total = 0;
  for (int64_t* key = keys; key != end; ++key) total += weight_of(*key);
  int64_t left = target_of(row.uniform, total);
  int64_t* key = keys;
  while (key + 1 != end && weight_of(*key) <= left) left -= weight_of(*key++);
  return id_of(*key);
}

// top_p or min_p without top_k. Ids that weigh (total - need) / vocab or less weigh total - need
// or less together: the rest has the mass that is needed.
int64_t draw_wide(const Row& row) {
  const int64_t total = total_of(row), need = need_of(row, total);
  const int64_t least = std::max((total - need) / row.vocab + 1, floor_of(row));
  int64_t count = 0;
  each_chunk(row, [&](int first, int n, const int64_t* weights, int64_t) {
    for (int i = 0; i < n; ++i) {
      row.keys[count] = key_of(weights[i], first + i);
      count += weights[i] >= least;
    }
    return true;
  });
  return draw_among(row, count, need);
}

// A float's bits as an integer of the same order; -0.0 as 0.0.
int32_t ordered(float x) {
  int32_t bits;
  x += 0.0f;
  std::memcpy(&bits, &x, 4);
  return bits ^ ((bits >> 31) & 0x7FFFFFFF);
}

int64_t draw_top_k(const Row& row, int k) {
  // The k-th greatest maximum of spans is no more than the k-th greatest logit.
  int64_t* const keys = row.keys;
  const int spans = (row.vocab + kSpan - 1) / kSpan;
  int32_t bound = INT32_MIN;
  if (spans > k) {
    for (int s = 0; s < spans; ++s) {
      keys[s] = ordered(row.isa.maximum(row.x + s * kSpan, std::min(kSpan, row.vocab - s * kSpan)));
    }
    std::nth_element(keys, keys + k - 1, keys + spans, std::greater<>());
    bound = int32_t(keys[k - 1]);
  }
  int64_t count = 0;
  for (int id = 0; id < row.vocab; ++id) {
    const int32_t value = ordered(row.x[id]);
    keys[count] = (int64_t(value) << 32) + (row.vocab - 1 - id);
    count += value >= bound;
  }
  std::nth_element(keys, keys + k - 1, keys + count, std::greater<>());
  int64_t total = 0;
  for (int i = 0; i < k; ++i) {
    const int64_t id = row.vocab - 1 - (keys[i] & 0xFFFFFFFF);
    int64_t weight;
    total += row.isa.weigh(row.x + id, 1, row.top, row.inverse_temperature, &weight);
    keys[i] = key_of(weight, id);
  }
  return draw_among(row, k, need_of(row, total));
}

}  // namespace

void draw(const DrawArgs& args, const Isa& isa, Team& team, int64_t* keys) {
  for (int i = team.next(args.rows); i >= 0; i = team.next(args.rows)) {
    const float* x = args.logits + i * args.stride;
    float top;
    isa.argmax_row(x, args.vocab, args.ids + i, &top);
    if (args.ids[i] < 0 || args.inverse_temperature[i] == 0.0) continue;
    const Row row{isa,           x,
                  args.vocab,    double(top),
                  args.inverse_temperature[i],
                  args.top_p[i], args.min_p[i],
                  args.uniform[i], keys};
    const int64_t k = args.top_k[i];
    if (k > 0 && k < args.vocab) {
      args.ids[i] = draw_top_k(row, int(k));
    } else if (row.top_p < 1 || row.min_p > 0) {
      args.ids[i] = draw_wide(row);
    } else {
      args.ids[i] = draw_all(row);
    }
  }
}

}  // namespace penstock
