// What the two agents of a link tell each other.
#include <algorithm>
#include <span>

#include "node-agent/transport/mirror/link.h"

namespace vsocket::transport {

void Link::OnControl(const Completion& completion, std::uint64_t buffer) {
  const LaneOptions& lane = options_.lanes[static_cast<std::size_t>(Lane::kControl)];
  const std::byte* bytes = control_memory_.data() + (lane.sends + buffer) * kControlBytes;
  ControlMessage message;
  if (completion.kind != Completion::Kind::kReceived || completion.length > kControlBytes ||
      !DecodeControl(std::span(bytes, completion.length), &message))
    return Fail("the far agent sent what is no control message");
  ++counters_.control_received;
  for (std::size_t i = 0; i < kLanes; ++i) {
    if (!lanes_[i]->OnFarReposted(message.header.reposted[i])) return Fail("the far agent reposted more than was used");
  }
  for (std::size_t i = 0; i < message.header.records && !failed_; ++i) {
    if (!OnRecord(message.records[i])) Fail("the far agent sent an impossible record");
  }
}

bool Link::OnRecord(const Record& record) {
  if (record.type == RecordType::kPing) {
    Record pong = record;
    pong.type = RecordType::kPong;
    pong.large = {};
    records_.push_back(pong);
    return true;
  }
  if (record.type == RecordType::kPong) {
    if (ping_ns_ == 0 || record.small[0] != ping_number_) return true;
    ping_ns_ = 0;
    work_confirmed_ = work_at_ping_;
    unconfirmed_since_ns_ = context_.now_ns;
    keepalive_at_ns_ = IsOwedAnything() ? context_.now_ns + options_.keepalive_ns : kNoDeadline;
    return true;
  }
  Connection* connection = Find(record.connection);
  if (connection == nullptr || connection->spec.epoch != record.epoch) return true;  // of one that is closed here
  if (record.type == RecordType::kClose) {
    connection->close_received = true;
    LosePath(*connection, "the far agent has closed it");
    return true;
  }
  if (connection->lost || connection->closing) return true;
  Activate(*connection);
  return OnConnectionRecord(*connection, record);
}

bool Link::OnConnectionRecord(Connection& connection, const Record& record) {
  Outbound& out = connection.out;
  Inbound& in = connection.in;
  switch (record.type) {
    case RecordType::kPropose:
      return in.OnPropose(context_, record);
    case RecordType::kCommit:
      out.OnCommit(context_, record.small[0]);
      return true;
    case RecordType::kState:
      out.OnState(context_, record);
      return true;
    case RecordType::kResize:
      return in.OnResize(context_, record);
    case RecordType::kResized:
      out.OnResized(record.small[0], record.small[1]);
      return true;
    case RecordType::kQuiet:
      out.OnQuiet();
      return true;
    case RecordType::kNotify:
      out.OnNotify();
      return true;
    case RecordType::kAskEnd:
      out.OnAskEnd();
      return true;
    case RecordType::kTellEnd:
      return in.OnTellEnd(context_, record);
    case RecordType::kWantBell:
      host_.FarSideWantsBell(record.connection);
      return true;
    case RecordType::kClose:
    case RecordType::kPing:
    case RecordType::kPong:
      break;
  }
  return false;
}

bool Link::SendControl() {
  if (failed_) return false;
  std::size_t sent = 0;
  while (sent < records_.size() && MaySendControl()) {
    const std::size_t count = std::min(records_.size() - sent, kMaxRecords);
    SendControlMessage(sent, count);
    sent += count;
  }
  records_.erase(records_.begin(), records_.begin() + static_cast<std::ptrdiff_t>(sent));
  const bool owes = std::any_of(lanes_.begin(), lanes_.end(), [](const auto& lane) { return lane->OwesCredit(); });
  if (owes && Queue(Lane::kControl).ReceivesLeft() > 0 && Queue(Lane::kControl).HasRoom(1)) SendControlMessage(0, 0);
  return sent != 0;
}

// The last two receives of the far side are kept for messages that only give credit: with those it can answer.
bool Link::MaySendControl() const {
  const LaneQueue& queue = *lanes_[static_cast<std::size_t>(Lane::kControl)];
  return queue.ReceivesLeft() > 2 && queue.HasRoom(1);
}

void Link::SendControlMessage(std::size_t first, std::size_t count) {
  LaneQueue& queue = Queue(Lane::kControl);
  ControlMessage message;
  message.header.records = static_cast<std::uint16_t>(count);
  for (std::size_t i = 0; i < kLanes; ++i) {
    message.header.reposted[i] = lanes_[i]->Reposted();
    lanes_[i]->ToldReposted();
  }
  bool asks = false;
  for (std::size_t i = 0; i < count; ++i) {
    message.records[i] = records_[first + i];
    asks |= message.records[i].type != RecordType::kPong;
  }
  // Not used again before its request is done: HasRoom.
  const std::size_t buffer = (queue.LastSequence() + 1) % options_.lanes[static_cast<std::size_t>(Lane::kControl)].sends;
  std::byte* to = control_memory_.data() + buffer * kControlBytes;
  SendRequest request;
  request.operation = SendRequest::Operation::kSend;
  request.length = static_cast<std::uint32_t>(EncodeControl(message, std::span<std::byte, kControlBytes>(to, kControlBytes)));
  request.local_address = reinterpret_cast<std::uint64_t>(to);
  request.local_key = control_keys_.local;
  queue.Add(request, 0);
  ++counters_.control_sent;
  if (asks) ++work_;
}

bool Link::IsOwedAnything() const {
  return std::any_of(connections_.begin(), connections_.end(), [](const auto& entry) {
    const Connection& connection = entry.second;
    return !connection.lost && !connection.closing && (connection.out.IsOwed() || connection.in.IsOwed());
  });
}

// Who has been given something to do and says nothing is asked whether it is there. A far agent that is stopped acknowledges in its
// device all the same, so requests that are done prove nothing. And it is asked again now and then while something is to come from it: it
// may have given the link up without a request of ours that would fail for it.
void Link::ConsiderPing() {
  const std::uint64_t now = context_.now_ns;
  if (ping_ns_ != 0) {
    if (now >= std::max(ping_ns_, heard_ns_) + options_.ping_timeout_ns) Fail("the far agent is silent");
    return;
  }
  if (work_ == work_confirmed_) {
    unconfirmed_since_ns_ = now;
    if (now < keepalive_at_ns_) return;
    keepalive_at_ns_ = kNoDeadline;
    if (!IsOwedAnything()) return;
  } else if (now < std::max(unconfirmed_since_ns_, heard_ns_) + options_.ping_after_ns) {
    return;
  }
  ping_ns_ = now;
  ++counters_.pings;
  Record ping;
  ping.type = RecordType::kPing;
  ping.small[0] = ++ping_number_;
  records_.push_back(ping);
  work_at_ping_ = work_ + 1;  // with the message that carries it
}

}  // namespace vsocket::transport
