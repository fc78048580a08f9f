// What works on one row at a time: normalisation, embedding, greedy choice.
#pragma once

namespace {

inline void norm(const NormArgs& p, Team& team) {
  const int to = share(p.rows, team.rank + 1, team.size);
  for (int row = share(p.rows, team.rank, team.size); row < to; ++row) {
    const int64_t at = row * p.x_stride;
    const F factor = splat(inverse_rms(p.x, Dtype::f32, at, p.size, p.eps));
    for (int i = 0; i < p.size; i += W) {
      const int left = p.size - i;
      const F v = mul(load_any(p.x, Dtype::f32, at + i, left), factor);
      const F w = load_any(p.weight, Dtype::f32, i, left);
      const int64_t place = row * p.out_stride + i;
      F y = mul(v, w);
      if (p.add) y = add(load_any(p.out, p.out_dtype, place, left), y);
      store_any(p.out, p.out_dtype, place, y, left);
    }
  }
}

// What the gated epilogues of a linear do, bit for bit.
inline void gate(const GateArgs& p, Team& team) {
  constexpr int half = kBlockN / 2;
  const int to = share(p.rows, team.rank + 1, team.size);
  for (int row = share(p.rows, team.rank, team.size); row < to; ++row) {
    const float* x = p.x + int64_t(row) * 2 * p.size;
    for (int i = 0; i < p.size; i += half) {
      for (int j = 0; j < half; j += W) {
        const F gate = load(x + 2 * i + j), up = load(x + 2 * i + half + j);
        const F act = p.act == Epilogue::silu_mul ? vsilu(gate) : vgelu_tanh(gate);
        store_any(p.out, p.out_dtype, row * p.out_stride + i + j, mul(act, up), p.size - i - j);
      }
    }
  }
}

inline void embed(const EmbedArgs& p, Team& team) {
  const int to = share(p.rows, team.rank + 1, team.size);
  for (int row = share(p.rows, team.rank, team.size); row < to; ++row) {
    const int64_t at = p.ids[row] * p.size;
    float* out = p.out + int64_t(row) * p.size;
    const float factor =
        p.dtype == Dtype::i8 ? p.multiplier * p.scales[p.ids[row]] : p.multiplier;
    for (int i = 0; i < p.size; i += W) {
      const int left = p.size - i;
      F v;
      if (p.dtype != Dtype::i8) {
        v = load_any(p.table, p.dtype, at + i, left);
      } else {
        const int8_t* q = static_cast<const int8_t*>(p.table) + at + i;
        int8_t some[W] = {};
        for (int j = 0; left < W && j < left; ++j) some[j] = q[j];
        v = load_i8(left < W ? some : q);
      }
      store_any(out, Dtype::f32, i, mul(v, splat(factor)), left);
    }
    rotate(out, p.size, p.parts);
  }
}

// The lowest id among the greatest. A NaN or an infinity makes the row's id -1.
inline void argmax_row(const float* x, int vocab, int64_t* id, float* maximum) {
  F best = splat(-__builtin_inff());
  I at = izero();
  I bits = izero();
  const I lane = lanes();
  for (int i = 0; i < vocab; i += W) {
    F v = load_any(x, Dtype::f32, i, vocab - i);
    bits = imax(bits, as_int(vabs(v)));
    if (vocab - i < W) v = select(iless(lane, isplat(vocab - i)), v, splat(-__builtin_inff()));
    const Mask greater = less(best, v);
    best = select(greater, v, best);
    at = as_int(select(greater, as_float(iadd(lane, isplat(i))), as_float(at)));
  }
  const float top = reduce_max(best);
  float values[W];
  int32_t ids[W];
  store(values, best);
  store(reinterpret_cast<float*>(ids), as_float(at));
  int32_t found = INT32_MAX;
  for (int j = 0; j < W; ++j) {
    if (values[j] == top && ids[j] < found) found = ids[j];
  }
  const bool nan = ireduce_max(bits) > 0x7F800000;
  const bool finite = !nan && top - top == 0.0f;
  *maximum = nan ? __builtin_nanf("") : top;
  *id = finite ? found : -1;
}

inline void argmax(const ArgmaxArgs& p, Team& team) {
  for (int row = team.next(); row < p.rows; row = team.next()) {
    argmax_row(p.logits + row * p.stride, p.vocab, p.ids + row, p.maxima + row);
  }
}

// e^y by e^r 2^n with a Taylor polynomial of e^r, |r| <= ln(2) / 2: below 1 unit in the last place
// of a double. Plain C, which the compiler turns into vectors. Weights below 1 are 0, so that the
// exponent may stop at e^-30.
inline int64_t weigh(const float* x, int n, double top, double inverse_temperature,
                     int64_t* weights) {
  int64_t sum = 0;
  for (int i = 0; i < n; ++i) {
    const double wanted = (double(x[i]) - top) * inverse_temperature;
    const double y = wanted > -30.0 ? wanted : -30.0;
    const double power = __builtin_rint(y * 1.4426950408889634);
    double r = __builtin_fma(power, -0.6931471803691238, y);
    r = __builtin_fma(power, -1.9082149292705877e-10, r);
    double p = 1.0 / 6227020800.0;
    p = __builtin_fma(p, r, 1.0 / 479001600.0);
    p = __builtin_fma(p, r, 1.0 / 39916800.0);
    p = __builtin_fma(p, r, 1.0 / 3628800.0);
    p = __builtin_fma(p, r, 1.0 / 362880.0);
    p = __builtin_fma(p, r, 1.0 / 40320.0);
    p = __builtin_fma(p, r, 1.0 / 5040.0);
    p = __builtin_fma(p, r, 1.0 / 720.0);
    p = __builtin_fma(p, r, 1.0 / 120.0);
    p = __builtin_fma(p, r, 1.0 / 24.0);
    p = __builtin_fma(p, r, 1.0 / 6.0);
    p = __builtin_fma(p, r, 0.5);
    p = __builtin_fma(p, r, 1.0);
    p = __builtin_fma(p, r, 1.0);
    const int64_t bits = int64_t(int32_t(power) + 1023 + 40) << 52;
    double scale;
    __builtin_memcpy(&scale, &bits, 8);
    weights[i] = int64_t(p * scale);
    sum += weights[i];
  }
  return sum;
}

inline float maximum(const float* x, int n) {
  F top = splat(-__builtin_inff());
  int i = 0;
  for (; i + W <= n; i += W) top = vmax(top, load(x + i));
  float greatest = reduce_max(top);
  for (; i < n; ++i) greatest = x[i] > greatest ? x[i] : greatest;
  return greatest;
}

}  // namespace
