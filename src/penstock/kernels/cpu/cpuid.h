// Which instruction sets this machine runs, best last.
#pragma once

#include <vector>

#include "types.h"

namespace penstock {

const std::vector<const Isa*>& supported_isas();

}  // namespace penstock
