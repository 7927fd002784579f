// Writing garbage into a mapped region: every word another party might read. Thread safety: none.
#pragma once

#include <cstdint>

#include "channel/layout.h"
#include "node-agent/broker/testing/fake_shim.h"

extern "C" {
#include "test/torture/random.h"
}

namespace vsocket::hostile {

// What an attack does before it turns to garbage: the further it plays along, the deeper the honest side has gone.
enum class Approach : std::uint8_t {
  kGarbage,  // nothing: garbage at once
  kAttach,   // says that it is attached: the honest side goes up
  kPropose,  // and proposes a ring for its own direction, with bytes in it
  kFrames,   // as kPropose, and then only TCP frames, well or badly formed
  kPatient,  // as kPropose, consumes and produces correctly for a while, then one wrong word
  kCount,
};

class Vandal {
 public:
  Vandal(broker::testing::MappedRegion& region, const channel::ChannelRef& channel, Random* random)
      : region_(region), channel_(channel), random_(random) {}

  void Attach();
  // A valid proposal at TCP position `start` with marker `marker`; `bytes` of the ring are said to be there.
  void Propose(std::uint64_t start, std::uint8_t marker, std::uint64_t bytes);
  // Takes note of what the honest side has put into its ring, as a consumer does.
  void Consume();
  // Some writes at random: extreme values into named words, any value into any word, bytes into the rings.
  void Wreck();

 private:
  channel::SideWords& Mine() { return region_.Slot(channel_.slot % channel::kSlots).side[channel_.side & 1]; }
  channel::SideWords& Theirs() { return region_.Slot(channel_.slot % channel::kSlots).side[1 - (channel_.side & 1)]; }
  std::uint64_t Extreme();
  void WreckNamedWord();
  void WreckAnyWord();
  void WreckRing();

  broker::testing::MappedRegion& region_;
  channel::ChannelRef channel_;
  Random* random_;
};

}  // namespace vsocket::hostile
