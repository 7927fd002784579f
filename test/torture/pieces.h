// Cutting a buffer into iovecs at random, empty ones among them. Thread safety: pure.
#pragma once

#include <sys/uio.h>

#include "test/torture/random.h"

enum { kMaxPieces = 8 };

// Covers [data, data + size) in order by `*count` pieces.
static inline void CutPieces(struct Random* random, void* data, size_t size, struct iovec pieces[kMaxPieces], unsigned* count) {
  *count = 1 + (unsigned)RandomBelow(random, kMaxPieces);
  size_t at = 0;
  for (unsigned i = 0; i < *count; ++i) {
    const size_t left = size - at;
    const size_t length = i + 1 == *count ? left : (RandomChance(random, 10) ? 0 : RandomLog(random, left));
    pieces[i].iov_base = (char*)data + at;
    pieces[i].iov_len = length;
    at += length;
  }
}

// How much to ask for in one call: 1 .. max, with the edges that buffers have.
static inline size_t IoSize(struct Random* random, uint64_t limit, size_t max) {
  static const unsigned kEdges[] = {1, 2, 7, 8, 4095, 4096, 4097, 16383, 16384, 16385, 65535, 65536, 65537, 262143, 262144, 262145};
  size_t size;
  switch (RandomBelow(random, 5)) {
    case 0:
      size = kEdges[RandomBelow(random, sizeof kEdges / sizeof *kEdges)];
      break;
    case 1:
      size = 1 + RandomBelow(random, 64);
      break;
    case 2:
      size = 1 + RandomBelow(random, 16384);
      break;
    case 3:
      size = 1 + RandomBelow(random, max);
      break;
    default:
      size = 1 + RandomLog(random, max - 1);
  }
  if (size > max) size = max;
  return size > limit ? (size_t)limit : size;
}
