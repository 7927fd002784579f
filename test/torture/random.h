// A small seeded generator: every choice of the torture, death and hostile programs comes from one, so that a seed repeats a run's
// choices (not its timing). splitmix64 (Steele, Lea, Flood 2014). Thread safety: none; each thread has its own.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct Random {
  uint64_t state;
};

static inline uint64_t Mix64(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ULL;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebULL;
  x ^= x >> 31;
  return x;
}

// A generator of its own for each (seed, stream).
static inline struct Random RandomOf(uint64_t seed, uint64_t stream) {
  struct Random random = {Mix64(seed + 0x9e3779b97f4a7c15ULL) ^ Mix64(stream * 0xd1342543de82ef95ULL + 1)};
  return random;
}

static inline uint64_t RandomNext(struct Random* random) {
  random->state += 0x9e3779b97f4a7c15ULL;
  return Mix64(random->state);
}

// 0 <= result < n; n > 0.
static inline uint64_t RandomBelow(struct Random* random, uint64_t n) {
  return RandomNext(random) % n;
}

static inline bool RandomChance(struct Random* random, unsigned percent) {
  return RandomBelow(random, 100) < percent;
}

// One of the bits set in `mask`; mask != 0.
static inline unsigned RandomBit(struct Random* random, uint64_t mask) {
  uint64_t skip = RandomBelow(random, (uint64_t)__builtin_popcountll(mask));
  while (skip-- > 0) mask &= mask - 1;
  return (unsigned)__builtin_ctzll(mask);
}

// 0 .. max, small numbers as likely as large ones (uniform in the number of bits).
static inline uint64_t RandomLog(struct Random* random, uint64_t max) {
  if (max == 0) return 0;
  const unsigned bits = 64 - (unsigned)__builtin_clzll(max);
  const unsigned shift = (unsigned)RandomBelow(random, bits + 1);
  const uint64_t top = shift >= 64 ? UINT64_MAX : (1ULL << shift) - 1;
  return RandomBelow(random, (top < max ? top : max) + 1);
}
