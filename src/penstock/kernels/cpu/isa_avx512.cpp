#include "types.h"
using namespace penstock;
#include "simd_avx512.h"
#include "isa.h"

const Isa* penstock::isa_avx512() {
  static const Isa isa = table("avx512");
  return &isa;
}
