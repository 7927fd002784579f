// The pair of this node and another, as far as verbs go: a fixed few queue pairs (lanes), however many connections, and what the two agents
// say to each other on them.
//
// Life: Create, Local() to the far agent, Connect with what it answered, Open and Close connections, until Failed(). A link fails as a
// whole, on the first error of any lane, on silence, and on anything the far agent must not do: every connection is reported once by
// PathLost with what is certain of it, and when Fail has returned neither side's requests touch any memory. Then it is destroyed, and
// perhaps another made; a connection opened again on the new one has another `path`.
//
// The loop around it: Poll while it has something to do; before sleeping PrepareToSleep, which may refuse; sleep until the device's
// descriptors, a wake object (Rung) or NextDeadline. A link that says nothing sleeps for ever.
//
// Thread safety: none.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "node-agent/transport/mirror/context.h"
#include "node-agent/transport/mirror/inbound.h"
#include "node-agent/transport/mirror/outbound.h"

namespace vsocket::transport {

inline constexpr std::uint64_t kNoDeadline = UINT64_MAX;

// What the far agent needs to connect; it crosses by their other path. The other node's may be anything.
struct LinkAddress {
  std::uint32_t version = 0;  // kWireVersion
  std::array<QueuePairAddress, kLanes> lanes{};
  std::array<std::uint32_t, kLanes> receives{};
  std::uint64_t board = 0;  // PositionCell[kMaxConnections]
  std::uint32_t board_key = 0;
};

class Link {
 public:
  // Memory of its own is registered, the queue pairs are made, their receives posted. `device` and `host` outlive it.
  static Result<std::unique_ptr<Link>, FabricError> Create(Device& device, MirrorHost& host, const MirrorOptions& options);
  ~Link();
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  [[nodiscard]] LinkAddress Local() const;
  // Once.
  Result<bool, FabricError> Connect(const LinkAddress& peer, std::uint64_t now_ns);

  // The slot's words must be those of the connection (RegionMemory::PrepareSlot); `path` is stored in the far half when it is open. Both
  // agents open it, in any order: what comes for a connection that is not open here yet is a fault of the far agent, so the one that is
  // told second opens first. False: the number is in use, or the spec is impossible.
  [[nodiscard]] bool Open(const ConnectionSpec& spec);
  // MirrorHost::Closed follows, at once when the link has failed.
  void Close(std::uint16_t connection);
  [[nodiscard]] bool IsOpen(std::uint16_t connection) const { return connections_.contains(connection); }

  // True: there was something to do, and may be more.
  bool Poll(std::uint64_t now_ns);
  // Arms what would end a sleep. False: something came meanwhile; Poll again.
  [[nodiscard]] bool PrepareToSleep(std::uint64_t now_ns);
  [[nodiscard]] std::uint64_t NextDeadline() const;
  // The wake object of this region was rung.
  void Rung(const RingMemory& memory);

  // From the outside: the device or its port has gone, the agents' other path says that the peer is dead.
  void Fail(const std::string& why);
  [[nodiscard]] bool Failed() const { return failed_; }
  [[nodiscard]] bool Owns(std::uint32_t queue_pair) const;
  [[nodiscard]] const std::string& Why() const { return why_; }
  [[nodiscard]] const MirrorCounters& Counters() const { return counters_; }
  [[nodiscard]] std::size_t Connections() const { return connections_.size(); }
  [[nodiscard]] PathReport Report(std::uint16_t connection) const;

 private:
  struct Connection {
    Connection(const ConnectionSpec& the_spec, const ConnectionWords& the_words, const SlotRings& rings)
        : spec(the_spec), words(the_words), out(the_spec, the_words, rings), in(the_spec, the_words) {}
    ConnectionSpec spec;
    ConnectionWords words;
    Outbound out;
    Inbound in;
    bool active = false;   // polled; otherwise its words are armed
    bool queued = false;   // in ready_
    bool lazy = false;     // in lazy_
    bool waiting = false;  // in waiting_
    bool lost = false;     // the path is gone, the host knows
    bool closing = false;  // Close was called
    bool close_sent = false;
    bool close_received = false;
  };

  Link(Device& device, MirrorHost& host, const MirrorOptions& options);
  Result<bool, FabricError> Prepare();
  [[nodiscard]] LaneQueue& Queue(Lane lane) { return *lanes_[static_cast<std::size_t>(lane)]; }
  [[nodiscard]] Connection* Find(std::uint16_t number);

  // link_poll.cc
  bool TakeCompletions();
  void OnCompletion(const Completion& completion);
  void OnReceived(const Completion& completion, CompletionId id);
  bool ServeConnections();
  void ServeConnection(Connection& connection);
  bool ServeLanes();
  bool ServeLane(Lane lane);
  void Activate(Connection& connection);
  void Enqueue(Connection& connection);
  void ServeLazily();
  void BecomeLazy(Connection& connection);
  bool ArmConnections();
  void RepostReceives(bool all);
  void RingDoorbells();
  void ConsiderClosing(Connection& connection);

  // link_control.cc
  void OnControl(const Completion& completion, std::uint64_t buffer);
  bool OnRecord(const Record& record);
  bool OnConnectionRecord(Connection& connection, const Record& record);
  bool SendControl();
  [[nodiscard]] bool MaySendControl() const;
  void SendControlMessage(std::size_t first, std::size_t count);
  void ConsiderPing();
  [[nodiscard]] bool IsOwedAnything() const;
  void LosePath(Connection& connection, const std::string& why);
  void FinishClosed();

  Device& device_;
  MirrorHost& host_;
  MirrorOptions options_;
  MirrorCounters counters_;

  std::vector<PositionCell> board_;
  std::vector<std::byte> control_memory_;  // sends, then receives, kControlBytes each
  MemoryKeys board_keys_, control_keys_;
  bool board_registered_ = false, control_registered_ = false;
  std::unique_ptr<CompletionQueue> completions_;
  std::array<std::unique_ptr<LaneQueue>, kLanes> lanes_;
  LinkContext context_;
  bool connected_ = false;
  bool failed_ = false;
  std::string why_;

  std::unordered_map<std::uint16_t, Connection> connections_;
  std::unordered_map<const RingMemory*, std::vector<std::uint16_t>> by_memory_;
  std::vector<std::uint16_t> active_;
  std::array<std::deque<std::uint16_t>, 2> ready_;
  std::vector<std::uint16_t> lazy_;
  std::vector<std::uint16_t> waiting_;  // for a completion
  std::vector<std::uint16_t> closing_;
  std::uint64_t lazy_at_ns_ = kNoDeadline;

  std::vector<Record> records_;  // to be sent
  std::uint64_t work_ = 0;       // what the far agent was given to do
  std::uint64_t work_at_ping_ = 0;
  std::uint64_t work_confirmed_ = 0;
  std::uint64_t unconfirmed_since_ns_ = 0;
  std::uint64_t heard_ns_ = 0;
  std::uint64_t ping_ns_ = 0;  // not 0: it is not answered
  std::uint32_t ping_number_ = 0;
  std::uint64_t keepalive_at_ns_ = kNoDeadline;
};

}  // namespace vsocket::transport
