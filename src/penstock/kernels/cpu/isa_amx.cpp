#include "types.h"
using namespace penstock;
#define PENSTOCK_AMX
#include "simd_avx512.h"
#include "isa.h"

const Isa* penstock::isa_amx() {
  static const Isa isa = table("amx");
  return &isa;
}
