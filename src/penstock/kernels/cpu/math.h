// Elementary functions on vectors, the same polynomial on every ISA.
#pragma once

namespace {

// e^x, relative error below 2e-7. x below -87.3 gives a number near 1e-38, not 0; NaN stays NaN.
inline F vexp(F x) {
  // min and max return their second operand when one is NaN.
  x = vmax(splat(-87.33654f), vmin(splat(88.37626f), x));
  const F n = round_nearest(mul(x, splat(1.44269504f)));
  F r = fma(n, splat(-0.693359375f), x);
  r = fma(n, splat(2.12194440e-4f), r);
  F p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = add(fma(p, mul(r, r), r), splat(1.0f));
  return times_power(p, n);
}

// The sum stays below 2^126 for the reciprocal.
inline F vsilu(F x) {
  return mul(x, reciprocal(add(splat(1.0f), vexp(vmin(splat(86.0f), sub(zero(), x))))));
}

// x / (1 + e^-2u), which is x (1 + tanh(u)) / 2, with u = sqrt(2 / pi) (x + 0.044715 x^3).
inline F vgelu_tanh(F x) {
  const F cube = mul(mul(x, x), x);
  const F u = mul(splat(-1.59576912f), fma(splat(0.044715f), cube, x));
  return mul(x, reciprocal(add(splat(1.0f), vexp(vmin(splat(86.0f), u)))));
}

inline F vtanh(F x) {  // 1 - 2 / (e^2x + 1)
  return sub(splat(1.0f), div(splat(2.0f), add(vexp(add(x, x)), splat(1.0f))));
}

// Part [begin, end) of `total` for one of `size` workers.
inline int share(int total, int rank, int size) {
  return int(int64_t(total) * rank / size);
}

inline float bf16_to_float(uint16_t v) {
  const uint32_t bits = uint32_t(v) << 16;
  float f;
  __builtin_memcpy(&f, &bits, 4);
  return f;
}

inline uint16_t bf16_of(float f) {
  uint32_t bits;
  __builtin_memcpy(&bits, &f, 4);
  if (f != f) return uint16_t((bits >> 16) | 0x40);
  return uint16_t((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

// W elements from p, or the first n and zeros.
inline F load_any(const void* base, Dtype dtype, int64_t at, int n) {
  if (dtype == Dtype::f32) {
    const float* p = static_cast<const float*>(base) + at;
    return n >= W ? load(p) : load_first(p, n);
  }
  const uint16_t* p = static_cast<const uint16_t*>(base) + at;
  if (n >= W) return load_bf16(p);
  uint16_t some[W] = {};
  for (int i = 0; i < n; ++i) some[i] = p[i];
  return load_bf16(some);
}

inline void store_any(void* base, Dtype dtype, int64_t at, F v, int n) {
  if (dtype == Dtype::f32) {
    float* p = static_cast<float*>(base) + at;
    n >= W ? store(p, v) : store_first(p, v, n);
  } else {
    uint16_t* p = static_cast<uint16_t*>(base) + at;
    n >= W ? store_bf16(p, v) : store_bf16_first(p, v, n);
  }
}

// A row times the Hadamard matrix that mixes `parts` runs of it, see kernels/rotation.py: sums and
// differences alone, so that vectors of any width give the same bits.
inline void rotate(float* x, int size, int parts) {
  const int length = parts > 1 ? size / parts : 0;
  for (int h = 1; h < parts; h *= 2) {
    for (int run = 0; run < parts; ++run) {
      if (run & h) continue;
      float* a = x + int64_t(run) * length;
      float* b = a + int64_t(h) * length;
      for (int i = 0; i < length; ++i) {
        const float sum = a[i] + b[i];
        b[i] = a[i] - b[i];
        a[i] = sum;
      }
    }
  }
}

// 1 / rms of a row of f32 or bf16. One order of addition, by lane.
inline float inverse_rms(const void* x, Dtype dtype, int64_t at, int size, float eps) {
  F sum = zero();
  for (int i = 0; i < size; i += W) {
    const F v = load_any(x, dtype, at + i, size - i);
    sum = fma(v, v, sum);
  }
  return 1.0f / __builtin_sqrtf(reduce_add(sum) / float(size) + eps);
}

}  // namespace
