#include "cpuid.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace penstock {
namespace {

struct Registers {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

Registers leaf(unsigned number, unsigned sub = 0) {
  Registers r;
  __get_cpuid_count(number, sub, &r.a, &r.b, &r.c, &r.d);
  return r;
}

bool bits(unsigned value, std::initializer_list<int> wanted) {
  for (int bit : wanted) {
    if (!(value >> bit & 1)) return false;
  }
  return true;
}

unsigned long long enabled_state() {  // what the operating system saves
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<unsigned long long>(high) << 32) | low;
}

bool tile_permission() {
  constexpr int kRequest = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

std::vector<const Isa*> detect() {
  std::vector<const Isa*> found;
  const Registers one = leaf(1), seven = leaf(7), seven_one = leaf(7, 1);
  if (!bits(one.c, {12, 27, 28, 29})) return found;  // FMA, OSXSAVE, AVX, F16C
  const auto state = enabled_state();
  if ((state & 0x6) != 0x6 || !bits(seven.b, {5})) return found;  // AVX2
  found.push_back(isa_avx2());
  if ((state & 0xE6) != 0xE6 || !bits(seven.b, {16, 17, 30, 31})) return found;  // F DQ BW VL
  found.push_back(isa_avx512());
  if (!bits(seven.c, {11}) || !bits(seven_one.a, {5})) return found;  // VNNI, BF16
  found.push_back(isa_vnni());
  if ((state >> 17 & 3) != 3 || !bits(seven.d, {22, 24, 25})) return found;  // AMX BF16 TILE INT8
  if (tile_permission()) found.push_back(isa_amx());
  return found;
}

}  // namespace

const std::vector<const Isa*>& supported_isas() {
  // Asked once: in a virtual machine each cpuid costs microseconds.
  static const std::vector<const Isa*> found = detect();
  return found;
}

}  // namespace penstock
