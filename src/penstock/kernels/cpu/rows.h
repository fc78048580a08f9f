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
      store_any(p.out, p.out_dtype, row * p.out_stride + i, mul(v, w), left);
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

}  // namespace
