// The shared-memory contract: what a region looks like to the agent and to the two shims that map it.
//
// A region is one sealed memfd per pair of processes. It holds kSlots slots; a slot is one connection: a header and two byte rings,
// one a direction. Ring 0 carries bytes from side 0 to side 1, ring 1 the other way.
//
//   0          RegionHeader                     4 KiB   written by the agent
//   4 KiB      SlotHeader[kSlots]         64 x  1 KiB   written by whom each member names
//   68 KiB     rings: [slot][direction]  128 x 256 KiB  written by the producer of that direction
//
// The memfd is sparse: a ring costs the pages of its current capacity class (see ring.h), so an idle connection costs two classes of
// kRingMin and a quarter of a header page.
//
// Trust: every word may be written by either side and by anyone the memfd was handed to. Nobody believes a word of another party;
// each load of one goes through Untrusted<T>. A side keeps its own positions in private memory and only *publishes* them here.
//
// Positions are stream positions: the number of payload bytes of that direction since the TCP connection was established, 64 bits,
// never wrapping. The ring index of a position is position & (capacity - 1).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace vsocket::channel {

inline constexpr std::uint32_t kLayoutMagic = 0x56534b31;  // "VSK1"
inline constexpr std::uint32_t kLayoutVersion = 3;         // changed with every change of the layout, and of what its words mean

inline constexpr std::uint32_t kSlots = 64;
inline constexpr std::uint32_t kRingMinLog2 = 14;  // 16 KiB: what a connection starts with
inline constexpr std::uint32_t kRingMaxLog2 = 18;  // 256 KiB: what a busy bulk stream grows to
inline constexpr std::uint64_t kRingMax = 1ULL << kRingMaxLog2;

inline constexpr std::size_t kFalseSharing = 128;  // two lines: adjacent-line prefetch couples pairs

static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<std::uint32_t>::is_always_lock_free,
              "words in shared memory must not hide a lock");

// Who must be rung, in a *_waiter word. A waiter arms its word, fences, re-checks and sleeps; whoever makes it ready exchanges the
// word for kNobody and, when it was armed, rings. See wake.h for the pairing.
enum WakeTarget : std::uint32_t {
  kNobody = 0,
  kTcpBell = 1,      // the universal doorbell: a BELL frame on the TCP connection
  kFirstWakeFd = 2,  // kFirstWakeFd + i: wake object i of that side (the fast doorbell)
};
inline constexpr std::uint32_t kWakeFdsPerSide = 16;

// Written by the agent only, but for `rung`.
struct alignas(4096) RegionHeader {
  std::uint32_t magic;
  std::uint32_t layout_version;
  std::uint64_t region_id;                                           // unique for the life of the memory, across agent restarts
  std::uint32_t slots;                                               // == kSlots
  std::uint32_t ring_max_log2;                                       // == kRingMaxLog2
  alignas(kFalseSharing) std::atomic<std::uint64_t> lease_until_ns;  // CLOCK_MONOTONIC; renewed about once a second while the agent lives
  std::atomic<std::uint32_t> revoked;                                // not 0: nobody may use any slot any more
  // Of each side's wake objects: not 0 when it has been rung since its owner last armed a word with it. Set by the other side, cleared by
  // the owner (wake.h).
  struct alignas(kFalseSharing) Rung {
    std::atomic<std::uint32_t> object[kWakeFdsPerSide];
  } rung[2];
};

// Words of one side about the direction it *sends*, the direction it *receives*, and itself. Written by that side, except that the
// *_waiter words are cleared by whoever rings.
struct SideWords {
  // Producer of its direction.
  alignas(kFalseSharing) std::atomic<std::uint64_t> tail;  // bytes below are in the ring; release, pairs with the consumer's acquire
  std::atomic<std::uint32_t> capacity_log2;                // changed only while the ring is empty, before the tail that needs it

  // Consumer of the other direction.
  alignas(kFalseSharing) std::atomic<std::uint64_t> head;  // bytes below are consumed; release, pairs with the producer's acquire

  // Changed seldom, read after every publication: on lines that neither position dirties.
  alignas(kFalseSharing) std::atomic<std::uint32_t> data_waiter;  // this side waits for bytes (WakeTarget)
  std::atomic<std::uint32_t> space_waiter;                        // this side waits for room in the direction it sends (WakeTarget)
  std::atomic<std::uint32_t> attached;  // this side has mapped the slot for epoch `attached`: it will see proposals
  std::atomic<std::uint32_t> gate;      // of the direction this side receives; both sides change it (gate.h)
  std::atomic<std::uint32_t> bells;     // BELL frames this side has sent, or is about to send
  // The proposal of the direction it sends (switch.h). The generation is stored last, with release.
  std::atomic<std::uint32_t> proposal_generation;
  std::atomic<std::uint32_t> proposal_marker;      // 0..255
  std::atomic<std::uint32_t> finished_generation;  // of the direction it receives: the last generation whose SWITCH it has seen
  std::atomic<std::uint64_t> proposal_start;
  std::atomic<std::uint64_t> tcp_sent;     // stream position of this side's last payload byte by TCP, while it sends by TCP
  std::atomic<std::uint64_t> tcp_offered;  // where that will be when the call has returned that is in the kernel now

  // Between nodes only (remote.h). The other side's half is then a copy, and its node's agent the only one that writes it.
  std::atomic<std::uint32_t> commit;        // of the direction it sends: CommitWord; its shim and its agent, by compare-and-swap
  std::atomic<std::uint32_t> wants_tcp;     // of the direction it receives: the generation that the sender is asked to leave
  std::atomic<std::uint32_t> eof_question;  // of the direction it receives: not 0: the kernel has said FIN; where does the stream end?
  std::atomic<std::uint32_t> eof_answer;    // of the direction it sends: EofAnswer
  std::atomic<std::uint64_t> eof_position;  // with kInRing: where the stream ends
  std::atomic<std::uint32_t> path;          // which path between the agents leads to this side; 0: none
};

struct SlotHeader {
  // Written by the agent.
  alignas(kFalseSharing) std::atomic<std::uint32_t> epoch;  // which connection holds the slot; 0: none. Changes with each grant
  std::atomic<std::uint32_t> revoked;                       // == epoch: this connection's channel is revoked
  // Of a direction with a bandwidth limit, by the side that sends (grant.h). All 0: it has none. On the line of `revoked`, which every
  // attempt loads anyway and which nobody writes while there is no limit.
  std::atomic<std::uint64_t> grant[2];
  std::atomic<std::uint32_t> pace_us[2];
  std::atomic<std::uint32_t> watched[2];  // GrantWatch
  SideWords side[2];
  std::byte pad[1024 - kFalseSharing - 2 * sizeof(SideWords)];
};

// SideWords::attached, beside an epoch and 0 (not yet, or closed):
inline constexpr std::uint32_t kAborted = UINT32_MAX;        // this side ended with a reset, and means it
inline constexpr std::uint32_t kGoneToTcp = UINT32_MAX - 1;  // this side has left the channel, and reads the kernel's socket only

inline constexpr std::size_t kSlotsOffset = sizeof(RegionHeader);
inline constexpr std::size_t kRingsOffset = kSlotsOffset + kSlots * sizeof(SlotHeader);
inline constexpr std::size_t kRegionBytes = kRingsOffset + 2 * kRingMax * kSlots;

constexpr std::size_t SlotOffset(std::uint32_t slot) {
  return kSlotsOffset + slot * sizeof(SlotHeader);
}
constexpr std::size_t RingOffset(std::uint32_t slot, std::uint32_t sender_side) {
  return kRingsOffset + (static_cast<std::size_t>(slot) * 2 + sender_side) * kRingMax;
}

static_assert(sizeof(RegionHeader) == 4096 && offsetof(RegionHeader, region_id) == 8 && offsetof(RegionHeader, lease_until_ns) == 128 &&
              offsetof(RegionHeader, revoked) == 136 && offsetof(RegionHeader, rung) == 256 && sizeof(RegionHeader::Rung) == 128);
static_assert(sizeof(SideWords) == 384 && offsetof(SideWords, tail) == 0 && offsetof(SideWords, capacity_log2) == 8 &&
              offsetof(SideWords, head) == 128 && offsetof(SideWords, data_waiter) == 256 && offsetof(SideWords, space_waiter) == 260 &&
              offsetof(SideWords, attached) == 264 && offsetof(SideWords, gate) == 268 && offsetof(SideWords, bells) == 272 &&
              offsetof(SideWords, proposal_generation) == 276 && offsetof(SideWords, proposal_marker) == 280 &&
              offsetof(SideWords, finished_generation) == 284 && offsetof(SideWords, proposal_start) == 288 &&
              offsetof(SideWords, tcp_sent) == 296 && offsetof(SideWords, tcp_offered) == 304 && offsetof(SideWords, commit) == 312 &&
              offsetof(SideWords, wants_tcp) == 316 && offsetof(SideWords, eof_question) == 320 && offsetof(SideWords, eof_answer) == 324 &&
              offsetof(SideWords, eof_position) == 328 && offsetof(SideWords, path) == 336);
static_assert(sizeof(SlotHeader) == 1024 && offsetof(SlotHeader, epoch) == 0 && offsetof(SlotHeader, revoked) == 4 &&
              offsetof(SlotHeader, grant) == 8 && offsetof(SlotHeader, pace_us) == 24 && offsetof(SlotHeader, watched) == 32 &&
              offsetof(SlotHeader, side) == 128);
static_assert(kRingsOffset == 4096 + 64 * 1024 && kRegionBytes == kRingsOffset + 64ULL * 2 * 256 * 1024);
static_assert(std::is_standard_layout_v<RegionHeader> && std::is_standard_layout_v<SlotHeader>);

}  // namespace vsocket::channel
