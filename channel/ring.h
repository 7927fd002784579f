// The byte ring: one direction of a connection, one producer side, one consumer side.
//
// Each side's truth is private (ProducerState, ConsumerState); the words in SideWords are what it tells the other. A lock outside
// serialises the threads and processes of one side, so nothing here is called twice at once for one state.
//
// Invariants, between honest sides:
//   head <= tail <= head + capacity
//   the capacity changes only while head == tail, by the producer, before the tail that uses it is published
// A side that sees anything else calls the peer broken; no value of the peer's is used before it has been bounded.
//
// Memory order: `tail` is stored with release after the bytes and loaded with acquire before them; `head` is stored with release after
// the copy out and loaded with acquire before the bytes are overwritten. `capacity_log2` rides on `tail`'s pair.
#pragma once

#include "base/relaxed.h"
#include "base/untrusted.h"
#include "channel/copy.h"
#include "channel/layout.h"

namespace vsocket::channel {

struct ProducerState {
  std::uint64_t pos = 0;                                // stream position of the next byte: our tail
  std::uint64_t seen_head = 0;                          // the consumer's head when last looked at; never decreases
  Relaxed<std::uint32_t> capacity_log2 = kRingMinLog2;  // also read by who only asks whether there is room
};

struct ConsumerState {
  std::uint64_t pos = 0;  // stream position of the next byte to read: our head
  std::uint64_t seen_tail = 0;
  std::uint32_t capacity_log2 = kRingMinLog2;
};

// Looks at the consumer's head again. False: the peer broke the ring. A head from before this ring was entered is no news, not a fault.
[[nodiscard]] inline bool RefreshRoom(ProducerState& state, const SideWords& consumer) {
  std::uint64_t head = 0;
  if (!LoadUntrusted(consumer.head, std::memory_order_acquire).Within(0, state.pos, &head)) return false;
  if (head > state.seen_head) state.seen_head = head;
  return true;
}

[[nodiscard]] inline std::uint64_t Room(const ProducerState& state) {
  return (1ULL << state.capacity_log2) - (state.pos - state.seen_head);
}

[[nodiscard]] inline bool IsDrained(const ProducerState& state) {
  return state.pos == state.seen_head;
}

// Requires IsDrained. The consumer learns of it with the next tail.
inline void SetCapacity(ProducerState& state, SideWords& mine, std::uint32_t capacity_log2) {
  state.capacity_log2 = capacity_log2;
  mine.capacity_log2.store(capacity_log2, std::memory_order_relaxed);
}

// Copies without publishing. Requires size <= Room(state) - offset. An empty part of an iovec may have no address.
inline void CopyIn(const ProducerState& state, std::byte* ring, std::uint64_t offset, const void* from, std::size_t size) {
  if (size == 0) return;
  const std::uint64_t capacity = 1ULL << state.capacity_log2;
  const std::uint64_t at = (state.pos + offset) & (capacity - 1);
  const std::uint64_t first = size < capacity - at ? size : capacity - at;
  CopyBytes(ring + at, from, first);
  CopyBytes(ring, static_cast<const std::byte*>(from) + first, size - first);
}

// The longest contiguous free piece at the producer's position, for readers that fill the ring in place (sendfile).
inline std::byte* FreePiece(const ProducerState& state, std::byte* ring, std::uint64_t limit, std::uint64_t* size) {
  const std::uint64_t capacity = 1ULL << state.capacity_log2;
  const std::uint64_t at = state.pos & (capacity - 1);
  const std::uint64_t room = Room(state) < capacity - at ? Room(state) : capacity - at;
  *size = room < limit ? room : limit;
  return ring + at;
}

inline void Publish(ProducerState& state, SideWords& mine, std::uint64_t added) {
  state.pos += added;
  mine.tail.store(state.pos, std::memory_order_release);
}

// Looks at the producer's tail again. False: the peer broke the ring.
[[nodiscard]] inline bool RefreshData(ConsumerState& state, const SideWords& producer) {
  std::uint64_t tail = 0;
  if (!LoadUntrusted(producer.tail, std::memory_order_acquire).Within(state.seen_tail, state.pos + kRingMax, &tail)) return false;
  if (tail != state.pos) {
    std::uint32_t capacity_log2 = 0;
    if (!LoadUntrusted(producer.capacity_log2, std::memory_order_relaxed).Within(kRingMinLog2, kRingMaxLog2, &capacity_log2)) return false;
    if (tail - state.pos > (1ULL << capacity_log2)) return false;
    state.capacity_log2 = capacity_log2;
  }
  state.seen_tail = tail;
  return true;
}

[[nodiscard]] inline std::uint64_t Available(const ConsumerState& state) {
  return state.seen_tail - state.pos;
}

// Copies without consuming. Requires offset + size <= Available(state). As CopyIn for an empty part.
inline void CopyOut(const ConsumerState& state, const std::byte* ring, std::uint64_t offset, void* to, std::size_t size) {
  if (size == 0) return;
  const std::uint64_t capacity = 1ULL << state.capacity_log2;
  const std::uint64_t at = (state.pos + offset) & (capacity - 1);
  const std::uint64_t first = size < capacity - at ? size : capacity - at;
  CopyBytes(to, ring + at, first);
  CopyBytes(static_cast<std::byte*>(to) + first, ring, size - first);
}

inline void Consume(ConsumerState& state, SideWords& mine, std::uint64_t taken) {
  state.pos += taken;
  mine.head.store(state.pos, std::memory_order_release);
}

}  // namespace vsocket::channel
