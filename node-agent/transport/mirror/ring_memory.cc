#include "node-agent/transport/mirror/ring_memory.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace vsocket::transport {
namespace {

constexpr std::size_t kHalf = channel::kSlots * channel::kRemoteRingMax;

Failure<FabricError> Fail(const char* what) {
  const int error = errno;
  return Failure(FabricError{error, std::string(what) + ": " + std::strerror(error)});
}

}  // namespace

Result<std::unique_ptr<RingMemory>, FabricError> RingMemory::Map(int memfd, std::uint32_t local_side, Device& device) {
  std::unique_ptr<RingMemory> memory(new RingMemory(memfd, local_side & 1, device));
  void* headers = ::mmap(nullptr, channel::kRingsOffset, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
  if (headers == MAP_FAILED) return Fail("mmap of a region's headers");
  memory->headers_ = headers;
  void* addresses = ::mmap(nullptr, 2 * kHalf, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (addresses == MAP_FAILED) return Fail("mmap of addresses for rings");
  memory->out_ = static_cast<std::byte*>(addresses);
  memory->in_ = memory->out_ + kHalf;
  return memory;
}

RingMemory::~RingMemory() {
  for (const auto& block : blocks_) {
    if (!block) continue;
    device_.Deregister(block->out);
    device_.Deregister(block->in);
  }
  if (headers_ != nullptr) ::munmap(headers_, channel::kRingsOffset);
  if (out_ != nullptr) ::munmap(out_, 2 * kHalf);
}

Result<bool, FabricError> RingMemory::Register(std::uint32_t block) {
  const std::uint32_t first = block * kBlockSlots;
  for (std::uint32_t slot = first; slot < first + kBlockSlots; ++slot) {
    for (std::uint32_t direction = 0; direction < 2; ++direction) {
      std::byte* at = (direction == side_ ? out_ : in_) + slot * channel::kRemoteRingMax;
      const auto offset = static_cast<off_t>(channel::RingOffset(slot, direction));
      if (::mmap(at, channel::kRemoteRingMax, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memfd_, offset) == MAP_FAILED)
        return Fail("mmap of a ring");
    }
  }
  constexpr std::size_t kBytes = kBlockSlots * channel::kRemoteRingMax;
  const auto out = device_.Register(out_ + first * channel::kRemoteRingMax, kBytes, Access::kLocal);
  if (!out) return Failure(out.Error());
  const auto in = device_.Register(in_ + first * channel::kRemoteRingMax, kBytes, Access::kRemoteWrite);
  if (!in) {
    device_.Deregister(out.Value());
    return Failure(in.Error());
  }
  blocks_[block] = Block{out.Value(), in.Value()};
  registrations_ += 2;
  return true;
}

Result<SlotRings, FabricError> RingMemory::Use(std::uint32_t slot) {
  const std::uint32_t block = slot / kBlockSlots;
  if (!blocks_[block]) {
    const auto registered = Register(block);
    if (!registered) return Failure(registered.Error());
  }
  SlotRings rings;
  rings.out = out_ + slot * channel::kRemoteRingMax;
  rings.in = in_ + slot * channel::kRemoteRingMax;
  rings.out_key = blocks_[block]->out.local;
  rings.in_remote_key = blocks_[block]->in.remote;
  return rings;
}

channel::SlotHeader& RingMemory::Slot(std::uint32_t slot) const {
  return *reinterpret_cast<channel::SlotHeader*>(static_cast<std::byte*>(headers_) + channel::SlotOffset(slot));
}

channel::RegionHeader& RingMemory::Header() const {
  return *static_cast<channel::RegionHeader*>(headers_);
}

}  // namespace vsocket::transport
