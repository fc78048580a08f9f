// Weights into integer formats: quant/int8.py and quant/int4.py are the specification.
#pragma once

#include <cstdint>

namespace penstock {

// A matrix [rows, size], float32 or bfloat16, rows `stride` elements apart. It is rotated over
// `parts` runs (kernels/rotation.py) and divided by their number before it is quantized.
struct WideMatrix {
  const void* data;
  bool bfloat16;
  int64_t rows, size, stride;
  int parts;
};

// Both share rows out among `threads` and return the greatest magnitude before the rotation,
// infinity for a NaN; nothing else is of use then.

// q [rows, size], scales [rows].
float quantize_int8(const WideMatrix& w, int8_t* q, float* scales, int threads);

// q [rows, groups, 16], scales float16 [rows, groups].
float quantize_int4(const WideMatrix& w, uint8_t* q, uint16_t* scales, int threads);

}  // namespace penstock
