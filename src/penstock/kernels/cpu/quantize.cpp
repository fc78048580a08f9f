// Plain loops that the compiler turns into vectors, once for each of three instruction sets.
#include "quantize.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <thread>
#include <vector>

#if defined(__GNUC__) && defined(__linux__)
#define VECTORIZED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTORIZED
#endif

namespace penstock {
namespace {

constexpr int kGroup = 32;
constexpr int kLanes = 16;  // groups that are searched side by side
constexpr float kGrid[] = {6.5f, 7.0f, 7.5f, 8.0f, 8.5f, 9.0f, 9.5f, 10.0f};

// Half to even, for magnitudes below 2^22.
inline float round_even(float x) { return (x + 12582912.0f) - 12582912.0f; }

// A level between low and high; NaN is 0.
inline float level(float x, float low, float high) {
  x = x == x ? x : 0.0f;
  x = x < low ? low : x;
  return round_even(x > high ? high : x);
}

// The greatest magnitude, infinity for a NaN. Compared as integers, which may be done in any order.
inline float magnitude(const float* x, int64_t size) {
  uint32_t greatest = 0;
  for (int64_t k = 0; k < size; ++k) {
    const uint32_t bits = std::bit_cast<uint32_t>(x[k]) & 0x7fffffffu;
    greatest = bits > greatest ? bits : greatest;
  }
  return std::bit_cast<float>(greatest < 0x7f800000u ? greatest : 0x7f800000u);
}

// Row r as float32, rotated and divided; its greatest magnitude before that.
VECTORIZED
float load_row(const WideMatrix& w, int64_t r, float* out) {
  if (w.bfloat16) {
    const uint16_t* row = static_cast<const uint16_t*>(w.data) + r * w.stride;
    for (int64_t k = 0; k < w.size; ++k) out[k] = std::bit_cast<float>(uint32_t(row[k]) << 16);
  } else {
    const float* row = static_cast<const float*>(w.data) + r * w.stride;
    for (int64_t k = 0; k < w.size; ++k) out[k] = row[k];
  }
  const float greatest = magnitude(out, w.size);
  const int64_t length = w.size / w.parts;
  for (int h = 1; h < w.parts; h *= 2) {
    for (int i = 0; i < w.parts; ++i) {
      if (i & h) continue;
      float* a = out + i * length;
      float* b = out + (i + h) * length;
      for (int64_t k = 0; k < length; ++k) {
        const float x = a[k], y = b[k];
        a[k] = x + y;
        b[k] = x - y;
      }
    }
  }
  const float scale = 1.0f / float(w.parts);  // a power of two
  if (w.parts > 1)
    for (int64_t k = 0; k < w.size; ++k) out[k] *= scale;
  return greatest;
}

VECTORIZED
float int8_row(const float* w, int64_t size, int8_t* q) {
  const float scale = magnitude(w, size) / 127.0f;
  const float divisor = scale > 0.0f ? scale : std::numeric_limits<float>::infinity();
  for (int64_t k = 0; k < size; ++k) q[k] = int8_t(level(w[k] / divisor, -127.0f, 127.0f));
  return scale;
}

using Columns = float[kGroup][kLanes];

// sums[l] = the sum of column l, in halves: the second half is added to the first, and so on.
inline void halve(Columns x, float* sums) {
  for (int half = kGroup / 2; half > 1; half /= 2)
    for (int i = 0; i < half; ++i)
      for (int l = 0; l < kLanes; ++l) x[i][l] += x[i + half][l];
  for (int l = 0; l < kLanes; ++l) sums[l] = x[0][l] + x[1][l];
}

// kLanes groups of w [kLanes, kGroup], side by side.
VECTORIZED
void int4_groups(const float* w, uint8_t* q, uint16_t* scales) {
  alignas(64) Columns t, levels, products, squares;
  alignas(64) float greatest[kLanes] = {}, best[kLanes] = {}, least[kLanes];
  for (int i = 0; i < kGroup; ++i)
    for (int l = 0; l < kLanes; ++l) t[i][l] = w[l * kGroup + i];
  for (int l = 0; l < kLanes; ++l) least[l] = std::numeric_limits<float>::infinity();
  for (int i = 0; i < kGroup; ++i)
    for (int l = 0; l < kLanes; ++l)
      greatest[l] = std::fabs(t[i][l]) > std::fabs(greatest[l]) ? t[i][l] : greatest[l];

  for (const float reach : kGrid) {
    alignas(64) float inverse[kLanes], scale[kLanes], wq[kLanes], qq[kLanes], error[kLanes];
    for (int l = 0; l < kLanes; ++l) inverse[l] = -reach / greatest[l];
    for (int i = 0; i < kGroup; ++i)
      for (int l = 0; l < kLanes; ++l) {
        const float x = level(t[i][l] * inverse[l], -8.0f, 7.0f);
        levels[i][l] = x;
        products[i][l] = t[i][l] * x;
        squares[i][l] = x * x;
      }
    halve(products, wq);
    halve(squares, qq);
    for (int l = 0; l < kLanes; ++l) scale[l] = float(_Float16(wq[l] / qq[l]));
    for (int i = 0; i < kGroup; ++i)
      for (int l = 0; l < kLanes; ++l) {
        const float missed = t[i][l] - levels[i][l] * scale[l];
        squares[i][l] = missed * missed;
      }
    halve(squares, error);
    for (int l = 0; l < kLanes; ++l) {
      // An empty group gives 0 / 0, which loses every comparison: its scale stays 0.
      best[l] = error[l] < least[l] ? scale[l] : best[l];
      least[l] = error[l] < least[l] ? error[l] : least[l];
    }
  }

  for (int i = 0; i < kGroup; ++i)
    for (int l = 0; l < kLanes; ++l) levels[i][l] = level(t[i][l] / best[l], -8.0f, 7.0f) + 8.0f;
  for (int l = 0; l < kLanes; ++l) {
    scales[l] = std::bit_cast<uint16_t>(_Float16(best[l]));
    for (int i = 0; i < kGroup / 2; ++i)
      q[l * kGroup / 2 + i] =
          uint8_t(int(levels[i][l]) | int(levels[i + kGroup / 2][l]) << 4);
  }
}

// body(first, last) for parts of the rows; the greatest of its results.
template <typename Body>
float shared_out(int64_t rows, int threads, const Body& body) {
  const int count = int(std::max<int64_t>(1, std::min<int64_t>(threads, rows)));
  std::vector<float> found(count);
  std::vector<std::thread> others;
  const auto part = [&](int i) { found[i] = body(rows * i / count, rows * (i + 1) / count); };
  for (int i = 1; i < count; ++i) others.emplace_back(part, i);
  part(0);
  for (std::thread& other : others) other.join();
  return *std::max_element(found.begin(), found.end());
}

}  // namespace

float quantize_int8(const WideMatrix& w, int8_t* q, float* scales, int threads) {
  return shared_out(w.rows, threads, [&](int64_t first, int64_t last) {
    std::vector<float> row(w.size);
    float greatest = 0.0f;
    for (int64_t r = first; r < last; ++r) {
      greatest = std::max(greatest, load_row(w, r, row.data()));
      scales[r] = int8_row(row.data(), w.size, q + r * w.size);
    }
    return greatest;
  });
}

float quantize_int4(const WideMatrix& w, uint8_t* q, uint16_t* scales, int threads) {
  const int64_t groups = (w.size + kGroup - 1) / kGroup;
  return shared_out(w.rows, threads, [&](int64_t first, int64_t last) {
    // Behind a row: zeros to a whole number of groups side by side, whose results go nowhere.
    const int64_t padded = (groups + kLanes - 1) / kLanes * kLanes;
    std::vector<float> row(padded * kGroup);
    std::vector<uint8_t> levels(padded * kGroup / 2);
    std::vector<uint16_t> found(padded);
    float greatest = 0.0f;
    for (int64_t r = first; r < last; ++r) {
      greatest = std::max(greatest, load_row(w, r, row.data()));
      for (int64_t g = 0; g < groups; g += kLanes)
        int4_groups(&row[g * kGroup], &levels[g * kGroup / 2], &found[g]);
      std::copy_n(levels.begin(), groups * kGroup / 2, q + r * groups * kGroup / 2);
      std::copy_n(found.begin(), groups, scales + r * groups);
    }
    return greatest;
  });
}

}  // namespace penstock
