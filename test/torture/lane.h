// A lane: a thread that connects and a thread that accepts, anywhere, running batch after batch of connections with each other.
// Thread safety: one thread a side.
#pragma once

#include "test/torture/end.h"

// Runs the connecting side until the run is to stop.
void LaneConnect(struct Lane* lane);
// Runs the accepting side until the connecting side has finished.
void LaneAccept(struct Lane* lane);
