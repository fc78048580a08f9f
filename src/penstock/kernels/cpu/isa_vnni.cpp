#include "types.h"
using namespace penstock;
#include "simd_avx512.h"
#include "isa.h"

const Isa* penstock::isa_vnni() {
  static const Isa isa = table("vnni");
  return &isa;
}
