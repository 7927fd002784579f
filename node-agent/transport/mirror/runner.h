// The loop around the links of one device: poll while it pays, then sleep.
//
// How long it polls before it sleeps adapts: work that comes while it polls makes the next budget longer, up to MirrorOptions::spin_ns, a
// sleep that follows makes it shorter. With spin_ns 0 it never polls for nothing.
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <vector>

#include "node-agent/transport/mirror/link.h"

namespace vsocket::transport {

class AdaptiveSpin {
 public:
  explicit AdaptiveSpin(std::uint64_t max_ns) : max_ns_(max_ns), budget_ns_(max_ns) {}
  void Worked(std::uint64_t now_ns);
  [[nodiscard]] bool IsOver(std::uint64_t now_ns) const { return now_ns - last_work_ns_ >= budget_ns_; }
  void Slept();
  [[nodiscard]] std::uint64_t BudgetNs() const { return budget_ns_; }

 private:
  std::uint64_t max_ns_;
  std::uint64_t budget_ns_;
  std::uint64_t last_work_ns_ = 0;
  bool spinning_ = false;  // a turn without work came since the last that had some
  friend class Runner;
};

class Runner {
 public:
  // `device` outlives it, and the links while they are added.
  Runner(Device& device, const MirrorOptions& options) : device_(device), spin_(options.spin_ns) {}
  void Add(Link* link) { links_.push_back(link); }
  void Remove(Link* link) { std::erase(links_, link); }

  // One turn. 0: take another at once. Otherwise everything is armed: sleep until that time (CLOCK_MONOTONIC; kNoDeadline: for ever), a
  // descriptor of the device, or a wake object (Link::Rung); then call Woken.
  std::uint64_t Turn(std::uint64_t now_ns);
  void Woken();

 private:
  Device& device_;
  AdaptiveSpin spin_;
  std::vector<Link*> links_;
};

}  // namespace vsocket::transport
