// The parts of a sparse feed-forward layer between its products: which expert gets which token, and
// the sum of what they made of it. Portable code; a token's result is its own.
#pragma once

#include "types.h"

namespace penstock {

void route(const RouteArgs& p, Team& team);
void combine(const CombineArgs& p, Team& team);

}  // namespace penstock
