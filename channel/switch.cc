#include "channel/switch.h"

#include <cstring>

namespace vsocket::channel {

Proposal GoUp(SwitchSender& s, std::uint64_t start, std::uint8_t next_byte) {
  s.mode = SwitchSender::Mode::kRing;
  s.generation = NextGeneration(s.generation);
  s.marker = static_cast<std::uint8_t>(next_byte + 1);
  return {s.generation, s.marker, start};
}

void GoDown(SwitchSender& s, std::uint64_t resume_at, std::uint64_t end) {
  s.frame[0] = static_cast<std::uint8_t>(s.marker + 1);
  std::memcpy(s.frame + 1, &s.generation, 4);
  std::memcpy(s.frame + 5, &resume_at, 8);
  s.frame_sent = 0;
  s.replay_from = resume_at;
  s.replay_end = end;
  s.mode = SwitchSender::Mode::kLeaving;
}

void GoDownSilently(SwitchSender& s, std::uint64_t resume_at, std::uint64_t end) {
  s.frame_sent = kSwitchFrameSize;
  s.replay_from = resume_at;
  s.replay_end = end;
  s.mode = resume_at == end ? SwitchSender::Mode::kTcp : SwitchSender::Mode::kLeaving;
}

std::size_t PendingFrame(const SwitchSender& s, const std::uint8_t** bytes) {
  *bytes = s.frame + s.frame_sent;
  return kSwitchFrameSize - s.frame_sent;
}

void SentWhileLeaving(SwitchSender& s, std::size_t size) {
  if (s.frame_sent < kSwitchFrameSize) {
    s.frame_sent = static_cast<std::uint8_t>(s.frame_sent + size);
  } else {
    s.replay_from += size;
  }
  if (s.frame_sent == kSwitchFrameSize && s.replay_from == s.replay_end) s.mode = SwitchSender::Mode::kTcp;
}

bool IsNew(const SwitchReceiver& r, const Proposal& proposal) {
  return proposal.generation == NextGeneration(r.generation) && proposal.start >= r.tcp_pos;
}

std::uint64_t PayloadBound(const SwitchReceiver& r, const Proposal& proposal) {
  return IsNew(r, proposal) ? proposal.start - r.tcp_pos : UINT64_MAX;
}

bool MayEnterRing(const SwitchReceiver& r, const Proposal& proposal) {
  return r.mode == SwitchReceiver::Mode::kTcp && IsNew(r, proposal) && proposal.start == r.tcp_pos;
}

bool EnterRing(SwitchReceiver& r, const Proposal& proposal) {
  if (!MayEnterRing(r, proposal)) return false;
  r.mode = SwitchReceiver::Mode::kRing;
  r.generation = proposal.generation;
  r.marker = proposal.marker;
  return true;
}

void EnterLeftRing(SwitchReceiver& r, const Proposal& proposal, std::uint64_t ring_tail) {
  r.mode = SwitchReceiver::Mode::kDraining;
  r.generation = proposal.generation;
  r.marker = proposal.marker;
  r.drain_until = ring_tail;
}

void PassLeftRing(SwitchReceiver& r, const Proposal& proposal) {
  r.generation = proposal.generation;
  r.drain_until = proposal.start;
}

FrameScan ScanFrames(SwitchReceiver& r, const std::uint8_t* bytes, std::size_t size, std::uint64_t ring_pos, std::uint64_t ring_tail) {
  FrameScan scan;
  while (scan.consumed < size && bytes[scan.consumed] == r.marker) {
    ++scan.consumed;
    ++scan.bells;
  }
  if (scan.consumed == size) return scan;
  const std::uint8_t* frame = bytes + scan.consumed;
  if (frame[0] != static_cast<std::uint8_t>(r.marker + 1)) {
    scan.outcome = FrameScan::Outcome::kBroken;
    return scan;
  }
  if (size - scan.consumed < kSwitchFrameSize) return scan;  // the bells before it may be taken; the frame waits for its rest
  std::uint32_t generation = 0;
  std::uint64_t resume_at = 0;
  std::memcpy(&generation, frame + 1, 4);
  std::memcpy(&resume_at, frame + 5, 8);
  if (generation != r.generation || resume_at > ring_tail) {
    scan.outcome = FrameScan::Outcome::kBroken;
    return scan;
  }
  scan.consumed += kSwitchFrameSize;
  scan.outcome = FrameScan::Outcome::kSwitch;
  r.tcp_pos = resume_at;
  r.drain_until = ring_tail;
  r.mode = SwitchReceiver::Mode::kDraining;
  (void)FinishDraining(r, ring_pos);
  return scan;
}

bool FinishDraining(SwitchReceiver& r, std::uint64_t ring_pos) {
  if (r.mode != SwitchReceiver::Mode::kDraining || ring_pos < r.drain_until) return false;
  r.mode = SwitchReceiver::Mode::kTcp;
  return true;
}

void AbandonRing(SwitchReceiver& r) {
  if (r.mode == SwitchReceiver::Mode::kDraining) r.mode = SwitchReceiver::Mode::kTcp;
}

}  // namespace vsocket::channel
