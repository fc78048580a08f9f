#include "types.h"
using namespace penstock;
#include "simd_avx2.h"
#include "isa.h"

const Isa* penstock::isa_avx2() {
  static const Isa isa = table("avx2");
  return &isa;
}
