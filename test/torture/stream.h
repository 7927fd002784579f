// What a stream holds: each byte is a function of (seed, connection, direction, position), so any byte can be made and checked at any
// position by anyone who knows the key, without state. Thread safety: pure functions.
#pragma once

#include <stddef.h>
#include <stdint.h>

// direction: 0 from the connector to the acceptor, 1 the other way.
uint64_t StreamKey(uint64_t seed, uint64_t connection, unsigned direction);

// Writes the n bytes of the stream from `position` on.
void StreamFill(uint64_t key, uint64_t position, void* out, size_t n);

// n when all n bytes are the stream's at `position`; else the index of the first that is not.
size_t StreamCheck(uint64_t key, uint64_t position, const void* data, size_t n);

// Where, within `reach` bytes around `position`, the stream holds these n (>= 8, or fewer at the end) bytes; -1 when nowhere. For
// telling a repeated or a skipped range from a foreign one.
int64_t StreamFind(uint64_t key, uint64_t position, uint64_t reach, const void* data, size_t n);
