// Whether revoked memory is out of everybody's hands, as the broker asks and transport/ answers.
//
// Thread safety: every method from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace vsocket::model {

enum class SealOutcome : std::uint8_t {
  kSealed,   // nobody maps it writable, and from here on nobody can, whatever descriptors are still open
  kInUse,    // some process maps it shared, or has its pages pinned (io_uring, O_DIRECT)
  kBlocked,  // somebody forbade further seals (F_SEAL_SEAL), which no shim does: it cannot be found out, nor prevented
};

struct MappingHolder {
  std::int32_t pid = 0;
  std::string program;  // proc(5), comm: what the process calls itself, printable; display only
  bool operator==(const MappingHolder&) const = default;
};

class MappingProbe {
 public:
  virtual ~MappingProbe() = default;
  // Seals a region's memfd against writing if that can be done. May take some 150 ms while pages are pinned.
  virtual SealOutcome Seal(int memfd) = 0;
  // The processes that have it mapped shared, this one left out. Reads /proc of every process; sees those of its own pid namespace and
  // below. One that has only pinned its pages is not found.
  virtual std::vector<MappingHolder> Holders(int memfd) = 0;
  // SIGKILL to a holder, if that process still maps the memory. False: it does not, or it has gone, or it may not be killed.
  virtual bool Kill(const MappingHolder& holder, int memfd) = 0;
};

// By F_SEAL_WRITE, /proc and pidfds; transport/mapping_probe.cc.
std::shared_ptr<MappingProbe> MakeMappingProbe();

}  // namespace vsocket::model
