// Drawing tokens: engine/draw.py is the specification, this file's comments only say how.
#pragma once

#include "types.h"

namespace penstock {

// Rows are shared out among the team. `keys`: room for vocab entries, this worker's own.
void draw(const DrawArgs& args, const Isa& isa, Team& team, int64_t* keys);

}  // namespace penstock
