#include "node-agent/transport/mirror/runner.h"

#include <algorithm>

namespace vsocket::transport {

void AdaptiveSpin::Worked(std::uint64_t now_ns) {
  if (spinning_) budget_ns_ = std::min(max_ns_, std::max(budget_ns_ * 2, max_ns_ / 16));
  spinning_ = false;
  last_work_ns_ = now_ns;
}

void AdaptiveSpin::Slept() {
  budget_ns_ = std::max(budget_ns_ / 2, max_ns_ / 64);
  spinning_ = false;
}

std::uint64_t Runner::Turn(std::uint64_t now_ns) {
  bool worked = false;
  for (Link* link : links_) worked |= link->Poll(now_ns);
  if (worked) {
    spin_.Worked(now_ns);
    return 0;
  }
  if (!spin_.IsOver(now_ns)) {
    spin_.spinning_ = true;
    return 0;
  }
  std::uint64_t deadline = kNoDeadline;
  for (Link* link : links_) {
    if (!link->PrepareToSleep(now_ns)) return 0;
    deadline = std::min(deadline, link->NextDeadline());
  }
  if (deadline <= now_ns) return 0;
  spin_.Slept();
  return deadline;
}

void Runner::Woken() {
  device_.ClearNotifications();
  DeviceEvent event = DeviceEvent::kOther;
  std::uint32_t queue_pair = 0;
  while (device_.TakeEvent(&event, &queue_pair)) {
    if (event == DeviceEvent::kPortUp || event == DeviceEvent::kOther) continue;
    for (Link* link : links_) {
      if (event == DeviceEvent::kQueuePairFailed && !link->Owns(queue_pair)) continue;
      link->Fail(event == DeviceEvent::kDeviceGone
                     ? "the device has gone"
                     : (event == DeviceEvent::kPortDown ? "the device's port is down" : "a queue pair failed"));
    }
  }
}

}  // namespace vsocket::transport
