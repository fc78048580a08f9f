// Everything that is compiled once for each instruction set. Included by isa_*.cpp alone, after
// its vector vocabulary; all of it has internal linkage.
#include "math.h"
#include "linear.h"
#include "rows.h"
#include "attention.h"

namespace {

inline void leave() {
#ifdef PENSTOCK_AMX
  leave_amx();
#endif
}

constexpr Isa table(const char* name) {
  return Isa{name,   linear, norm, gate,   embed,      rope, attention,
             argmax, weigh,  maximum, argmax_row, leave};
}

}  // namespace
