// What a link asks of the agent that owns it, and the report of a connection whose path is lost.
#pragma once

#include <cstdint>
#include <string>

namespace vsocket::transport {

// What is certain about a connection when its path goes, in stream positions. Nothing is assumed of requests that were not acknowledged.
struct PathReport {
  std::uint16_t connection = 0;
  std::uint32_t epoch = 0;
  bool sending_on_ring = false;      // the local sender had a committed proposal
  std::uint64_t written = 0;         // of it: bytes below were handed to the device
  std::uint64_t known_consumed = 0;  // of it: bytes below were read by the far program, as its agent told, or went by TCP
  bool receiving_on_ring = false;    // the far sender had a proposal here
  std::uint64_t received = 0;        // of it: bytes below are in the local ring
  std::uint64_t told_consumed = 0;   // of it: what the far agent was last told
};

class MirrorHost {
 public:
  virtual ~MirrorHost() = default;
  // Ring a local pod: `target` is a channel::WakeTarget of the local side, as the pod armed it. kTcpBell: only a byte by TCP wakes it.
  virtual void WakePod(std::uint16_t connection, std::uint32_t target) = 0;
  // The far side's receiver sleeps where only a byte by TCP wakes it.
  virtual void FarSideWantsBell(std::uint16_t connection) = 0;
  // The connection has no path any more: its link was lost, the far agent closed it, or its pod wrote impossible values. Close it.
  virtual void PathLost(const PathReport& report, const std::string& why) = 0;
  // After Close: neither side's agent touches its slot any more, the number may be used again.
  virtual void Closed(std::uint16_t connection) = 0;
};

}  // namespace vsocket::transport
