// The vector vocabulary on AVX2 with FMA and F16C. See simd_avx512.h for what each word means.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

constexpr int W = 8;
using F = __m256;
using I = __m256i;
using Mask = __m256;

inline F zero() { return _mm256_setzero_ps(); }
inline F splat(float v) { return _mm256_set1_ps(v); }
inline F load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, F v) { _mm256_storeu_ps(p, v); }
inline I lanes() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
inline I first_int(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lanes()); }
inline F load_first(const float* p, int n) { return _mm256_maskload_ps(p, first_int(n)); }
inline void store_first(float* p, F v, int n) { _mm256_maskstore_ps(p, first_int(n), v); }
inline F add(F a, F b) { return _mm256_add_ps(a, b); }
inline F sub(F a, F b) { return _mm256_sub_ps(a, b); }
inline F mul(F a, F b) { return _mm256_mul_ps(a, b); }
inline F div(F a, F b) { return _mm256_div_ps(a, b); }
inline F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
inline F vmax(F a, F b) { return _mm256_max_ps(a, b); }
inline F vmin(F a, F b) { return _mm256_min_ps(a, b); }
inline F vabs(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
inline float reduce_add(F v) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps(x, x, 1)));
}
inline float reduce_max(F v) {
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps(x, x, 1)));
}
inline F round_nearest(F v) { return _mm256_round_ps(v, 0x08); }
inline F select(Mask m, F yes, F no) { return _mm256_blendv_ps(no, yes, m); }
inline Mask less(F a, F b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }

inline I izero() { return _mm256_setzero_si256(); }
inline I isplat(int32_t v) { return _mm256_set1_epi32(v); }
inline I iload(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline I iadd(I a, I b) { return _mm256_add_epi32(a, b); }
inline I isub(I a, I b) { return _mm256_sub_epi32(a, b); }
inline I imax(I a, I b) { return _mm256_max_epi32(a, b); }
inline int32_t ireduce_add(I v) {
  __m128i x = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32(x, 0xB1)));
}
inline int32_t ireduce_max(I v) {
  __m128i x = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  x = _mm_max_epi32(x, _mm_shuffle_epi32(x, 0x4E));
  return _mm_cvtsi128_si32(_mm_max_epi32(x, _mm_shuffle_epi32(x, 0xB1)));
}
inline F to_float(I v) { return _mm256_cvtepi32_ps(v); }
inline I to_int(F v) { return _mm256_cvtps_epi32(v); }
inline F as_float(I v) { return _mm256_castsi256_ps(v); }
inline I as_int(F v) { return _mm256_castps_si256(v); }
inline F reciprocal(F v) { return div(splat(1.0f), v); }
inline F times_power(F v, F n) {  // n in -126 .. 127
  const I exponent = iadd(to_int(n), isplat(127));
  return mul(v, as_float(_mm256_slli_epi32(exponent, 23)));
}
inline Mask iless(I a, I b) { return as_float(_mm256_cmpgt_epi32(b, a)); }
inline Mask both(Mask a, Mask b) { return _mm256_and_ps(a, b); }
inline I shift_left(I v, int n) { return _mm256_slli_epi32(v, n); }

inline I low_nibbles(I v) { return _mm256_and_si256(v, _mm256_set1_epi8(0x0F)); }
inline I high_nibbles(I v) {
  return _mm256_and_si256(_mm256_srli_epi16(v, 4), _mm256_set1_epi8(0x0F));
}
inline I widen_pairs(const int8_t* p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline F load_i8(const int8_t* p) {
  return to_float(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
inline __m128i pack_i16(I v) {  // values fit 16 bits
  return _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
}
inline void store_i8(int8_t* p, I v) {
  const __m128i words = pack_i16(v);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
}
inline void store_i16(int16_t* p, I v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), pack_i16(v));
}
inline I low_halves(I v) { return _mm256_and_si256(v, isplat(0xFFFF)); }
inline F load_f16(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline F load_bf16(const uint16_t* p) {
  return as_float(_mm256_slli_epi32(
      _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
}
inline I bf16_bits(F v) {
  const I bits = as_int(v);
  const I odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), isplat(1));
  const I rounded = _mm256_srli_epi32(iadd(iadd(bits, isplat(0x7FFF)), odd), 16);
  const I quiet = _mm256_or_si256(_mm256_srli_epi32(bits, 16), isplat(0x40));
  return as_int(select(_mm256_cmp_ps(v, v, _CMP_UNORD_Q), as_float(quiet), as_float(rounded)));
}
inline void store_bf16(uint16_t* p, F v) {
  const I bits = bf16_bits(v);
  _mm_storeu_si128(
      reinterpret_cast<__m128i*>(p),
      _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1)));
}
inline void store_bf16_first(uint16_t* p, F v, int n) {
  uint16_t all[W];
  store_bf16(all, v);
  for (int i = 0; i < n && i < W; ++i) p[i] = all[i];
}

inline F dot_f32(F acc, I b, I a) { return fma(as_float(b), as_float(a), acc); }

inline F dot_bf16(F acc, I b, I a) {
  const I high = isplat(int32_t(0xFFFF0000));
  acc = fma(as_float(_mm256_and_si256(b, high)), as_float(_mm256_and_si256(a, high)), acc);
  return fma(as_float(shift_left(b, 16)), as_float(shift_left(a, 16)), acc);
}

inline I dot_i16(I acc, I b, I a) { return iadd(acc, _mm256_madd_epi16(b, a)); }

constexpr int kWeightOffset = 0;
inline I dot_u4(I acc, I b, I a) {
  return iadd(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(b, a), _mm256_set1_epi16(1)));
}
inline I dot_i8(I acc, I b, I a) {
  const I w = _mm256_xor_si256(b, _mm256_set1_epi8(int8_t(0x80)));
  return iadd(acc, _mm256_madd_epi16(
                       _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(w, a)),
                       _mm256_set1_epi16(1)));
}

constexpr int kMaxRowsOneBlock = 2;  // 16 registers
constexpr int kMaxRowsTwoBlocks = 1;
constexpr int kMaxRowsInt4 = 1;
constexpr int kMaxRowsAttention = 4;
constexpr int kWideRows = 2;
constexpr int kWide = 4;
constexpr int kNarrow = 2;

}  // namespace
