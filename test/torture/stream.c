#include "test/torture/stream.h"

#include <string.h>

#include "test/torture/random.h"

uint64_t StreamKey(uint64_t seed, uint64_t connection, unsigned direction) {
  return Mix64(Mix64(seed) + connection * 2 + direction + 0x632be59bd9b4e019ULL);
}

static inline uint64_t WordAt(uint64_t key, uint64_t index) {
  return Mix64(key + index * 0x9e3779b97f4a7c15ULL);
}

static inline unsigned char ByteAt(uint64_t key, uint64_t position) {
  return (unsigned char)(WordAt(key, position / 8) >> (8 * (position % 8)));
}

void StreamFill(uint64_t key, uint64_t position, void* out, size_t n) {
  unsigned char* bytes = out;
  size_t i = 0;
  for (; i < n && (position + i) % 8 != 0; ++i) bytes[i] = ByteAt(key, position + i);
  for (; i + 8 <= n; i += 8) {
    const uint64_t word = WordAt(key, (position + i) / 8);
    memcpy(bytes + i, &word, 8);
  }
  for (; i < n; ++i) bytes[i] = ByteAt(key, position + i);
}

size_t StreamCheck(uint64_t key, uint64_t position, const void* data, size_t n) {
  const unsigned char* bytes = data;
  size_t i = 0;
  for (; i < n && (position + i) % 8 != 0; ++i) {
    if (bytes[i] != ByteAt(key, position + i)) return i;
  }
  for (; i + 8 <= n; i += 8) {
    uint64_t word;
    memcpy(&word, bytes + i, 8);
    if (word != WordAt(key, (position + i) / 8)) break;
  }
  for (; i < n; ++i) {
    if (bytes[i] != ByteAt(key, position + i)) return i;
  }
  return n;
}

int64_t StreamFind(uint64_t key, uint64_t position, uint64_t reach, const void* data, size_t n) {
  const uint64_t first = position > reach ? position - reach : 0;
  for (uint64_t at = first; at < position + reach; ++at) {
    if (StreamCheck(key, at, data, n) == n) return (int64_t)at;
  }
  return -1;
}
