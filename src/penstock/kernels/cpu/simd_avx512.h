// The vector vocabulary on AVX-512 (F, BW, VL, DQ), and with VNNI and BF16 where compiled for.
// W lanes of 32 bits. A "row" of a packed panel holds 4 bytes of W outputs.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

constexpr int W = 16;
using F = __m512;
using I = __m512i;
using Mask = __mmask16;

inline F zero() { return _mm512_setzero_ps(); }
inline F splat(float v) { return _mm512_set1_ps(v); }
inline F load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, F v) { _mm512_storeu_ps(p, v); }
inline Mask first(int n) { return n >= W ? Mask(0xFFFF) : n <= 0 ? Mask(0) : Mask((1u << n) - 1); }
inline F load_first(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
inline void store_first(float* p, F v, int n) { _mm512_mask_storeu_ps(p, first(n), v); }
inline F add(F a, F b) { return _mm512_add_ps(a, b); }
inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
inline F div(F a, F b) { return _mm512_div_ps(a, b); }
inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline F vmax(F a, F b) { return _mm512_max_ps(a, b); }
inline F vmin(F a, F b) { return _mm512_min_ps(a, b); }
inline F vabs(F a) { return _mm512_abs_ps(a); }
inline float reduce_add(F v) { return _mm512_reduce_add_ps(v); }
inline float reduce_max(F v) { return _mm512_reduce_max_ps(v); }
// 1 / v for v in 1 .. 2^126, relative error below 2^-23: a Newton step, cheaper than a division.
inline F reciprocal(F v) {
  const F guess = _mm512_rcp14_ps(v);
  return mul(guess, _mm512_fnmadd_ps(guess, v, splat(2.0f)));
}
inline F times_power(F v, F n) { return _mm512_scalef_ps(v, n); }  // v * 2^n
inline F round_nearest(F v) { return _mm512_roundscale_ps(v, 0x08); }
inline F select(Mask m, F yes, F no) { return _mm512_mask_blend_ps(m, no, yes); }
inline Mask less(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }

inline I izero() { return _mm512_setzero_si512(); }
inline I isplat(int32_t v) { return _mm512_set1_epi32(v); }
inline I iload(const void* p) { return _mm512_loadu_si512(p); }
inline I iadd(I a, I b) { return _mm512_add_epi32(a, b); }
inline I isub(I a, I b) { return _mm512_sub_epi32(a, b); }
inline I imax(I a, I b) { return _mm512_max_epi32(a, b); }
inline int32_t ireduce_add(I v) { return _mm512_reduce_add_epi32(v); }
inline int32_t ireduce_max(I v) { return _mm512_reduce_max_epi32(v); }
inline I lanes() { return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
inline Mask iless(I a, I b) { return _mm512_cmplt_epi32_mask(a, b); }
inline Mask both(Mask a, Mask b) { return Mask(a & b); }
inline F to_float(I v) { return _mm512_cvtepi32_ps(v); }
inline I to_int(F v) { return _mm512_cvtps_epi32(v); }
inline F as_float(I v) { return _mm512_castsi512_ps(v); }
inline I as_int(F v) { return _mm512_castps_si512(v); }
inline I shift_left(I v, int n) { return _mm512_slli_epi32(v, n); }

// Bytes: nibbles of a row, and rows of 16-bit pairs from rows of 8-bit pairs.
inline I low_nibbles(I v) { return _mm512_and_si512(v, _mm512_set1_epi8(0x0F)); }
inline I high_nibbles(I v) {
  return _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(0x0F));
}
inline I widen_pairs(const int8_t* p) {  // 2 W bytes -> 2 W int16
  return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline F load_i8(const int8_t* p) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
inline void store_i8(int8_t* p, I v) {  // values already within -127 .. 127
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
}
inline void store_i16(int16_t* p, I v) {  // values fit
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(v));
}
inline I low_halves(I v) { return _mm512_and_si512(v, isplat(0xFFFF)); }
inline F load_f16(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline F load_bf16(const uint16_t* p) {
  return as_float(_mm512_slli_epi32(
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
}
// Round to nearest even; NaN stays NaN. (vcvtneps2bf16 also flushes subnormals.)
inline I bf16_bits(F v) {  // in the low half of each lane
  const I bits = as_int(v);
  const I odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), isplat(1));
  const I rounded = _mm512_srli_epi32(iadd(iadd(bits, isplat(0x7FFF)), odd), 16);
  const I quiet = _mm512_or_si512(_mm512_srli_epi32(bits, 16), isplat(0x40));
  return _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), rounded, quiet);
}
inline __m256i to_bf16(F v) {
#ifdef __AVX512BF16__
  return (__m256i)_mm512_cvtneps_pbh(v);
#else
  return _mm512_cvtepi32_epi16(bf16_bits(v));
#endif
}
inline void store_bf16(uint16_t* p, F v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bf16(v));
}
inline void store_bf16_first(uint16_t* p, F v, int n) {
  _mm256_mask_storeu_epi16(p, first(n), to_bf16(v));
}

// The dot products of a row with 4 bytes of activations, which `a` repeats in each lane. In
// assembly where an instruction adds to its operand: gcc 12 copies such accumulators in every step
// of the register kernels (2.3 times slower there).
#define PENSTOCK_ACCUMULATE(instruction, acc, x, y) \
  __asm__(instruction " %2, %1, %0" : "+v"(acc) : "v"(x), "v"(y))
inline F dot_f32(F acc, I b, I a) { return fma(as_float(b), as_float(a), acc); }

inline F dot_bf16(F acc, I b, I a) {
#ifdef __AVX512BF16__
  PENSTOCK_ACCUMULATE("vdpbf16ps", acc, b, a);
  return acc;
#else
  const I high = isplat(int32_t(0xFFFF0000));
  acc = fma(as_float(_mm512_and_si512(b, high)), as_float(_mm512_and_si512(a, high)), acc);
  return fma(as_float(shift_left(b, 16)), as_float(shift_left(a, 16)), acc);
#endif
}

inline I dot_i16(I acc, I b, I a) {
#ifdef __AVX512VNNI__
  PENSTOCK_ACCUMULATE("vpdpwssd", acc, b, a);
  return acc;
#else
  return iadd(acc, _mm512_madd_epi16(b, a));
#endif
}

// int8 weights are stored with 128 added. kWeightOffset is what of it is left in the dot product.
#ifdef __AVX512VNNI__
constexpr int kWeightOffset = 128;
inline I dot_i8(I acc, I b, I a) {
  PENSTOCK_ACCUMULATE("vpdpbusd", acc, b, a);
  return acc;
}
inline I dot_u4(I acc, I b, I a) { return dot_i8(acc, b, a); }
#else
constexpr int kWeightOffset = 0;
inline I dot_u4(I acc, I b, I a) {
  return iadd(acc, _mm512_madd_epi16(_mm512_maddubs_epi16(b, a), _mm512_set1_epi16(1)));
}
// vpmaddubsw saturates at 16 bits: |a| (b with a's sign) stays below, two products of 127 * 127.
inline I dot_i8(I acc, I b, I a) {
  const I w = _mm512_xor_si512(b, _mm512_set1_epi8(int8_t(0x80)));
  const I signed_w = _mm512_mask_sub_epi8(w, _mm512_movepi8_mask(a), izero(), w);
  return iadd(acc, _mm512_madd_epi16(_mm512_maddubs_epi16(_mm512_abs_epi8(a), signed_w),
                                     _mm512_set1_epi16(1)));
}
#endif

constexpr int kMaxRowsOneBlock = 12;  // rows whose accumulators for 32 outputs fit 32 registers
constexpr int kMaxRowsTwoBlocks = 6;
constexpr int kMaxRowsInt4 = 6;
constexpr int kMaxRowsAttention = 12;
constexpr int kWideRows = 6;  // up to here attention takes four vectors across, else two
constexpr int kWide = 4;
constexpr int kNarrow = 2;

}  // namespace
