// The broker: what shims ask and when it is granted, for how long, and when it is taken away.
//
// It decides by what the kernel says of the sockets that are handed in and by the pods the CNI told of; of what a shim writes it only
// believes what can hurt nobody but the shim. It does no waiting: everything slow is behind PodSockets (netlink, answered at once) or
// ForeignFds.
//
// Thread safety: none; one thread calls every method (the control server's loop).
#pragma once

#include <array>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/unique_fd.h"
#include "node-agent/broker/channel_table.h"
#include "node-agent/broker/control_parse.h"
#include "node-agent/broker/foreign_fds.h"
#include "node-agent/broker/kernel.h"
#include "node-agent/broker/options.h"
#include "node-agent/broker/pacer.h"
#include "node-agent/broker/pending_table.h"
#include "node-agent/broker/revocation_watch.h"
#include "node-agent/broker/shim_link.h"
#include "node-agent/model/affected.h"
#include "node-agent/model/bandwidth.h"
#include "node-agent/model/connection.h"
#include "node-agent/model/local_pod.h"

namespace vsocket::broker {

inline constexpr std::size_t kReasonCount = 24;  // channel::Reason; an unknown number is counted as kNone

// For metrics and status. Counters never decrease while the agent lives.
struct BrokerStats {
  std::uint32_t pods = 0, processes = 0, channels = 0, regions = 0, pending = 0;
  std::uint64_t bytes_reserved = 0, ring_bytes = 0;
  std::uint64_t requests = 0;    // UPGRADEs
  std::uint64_t upgrades = 0;    // channels granted
  std::uint64_t reattached = 0;  // ends taken back after a restart
  std::array<std::uint64_t, kReasonCount> denials{};
  std::uint64_t revocations = 0;        // channels
  std::uint64_t sockets_destroyed = 0;  // kernel TCP connections cut
  RevocationStats revoked_memory;
  PacerStats bandwidth;
  std::uint64_t over_limit = 0;  // channels cut because a sender ignored its grant
  std::uint64_t swept = 0;       // ends of channels taken back without a RELEASE of their living process
  std::uint64_t protocol_errors = 0;
  std::uint64_t shims_refused = 0, shims_dropped = 0;
};

struct PodLoad {
  std::uint32_t processes = 0, channels = 0;
  std::uint64_t bytes = 0;
  model::Bandwidth bandwidth;
};

class Broker {
 public:
  // `clock` gives CLOCK_MONOTONIC nanoseconds; `instance` is told to the shims.
  Broker(BrokerOptions options, std::unique_ptr<SocketProbe> probe, std::function<std::uint64_t()> clock, std::uint64_t instance);
  ~Broker();

  // --- pods ---
  void AddPod(const model::LocalPod& pod, std::unique_ptr<PodSockets> sockets);  // an earlier record with the uid is removed first
  // Revokes its channels, destroys its TCP connections, disconnects its shims. Nothing happens when it is unknown.
  void RemovePod(const std::string& uid, const std::string& why);

  // --- shims ---
  // A process connected. 0: refused; `*refusal` says why. `netns_inode` is that of the process, by /proc.
  SessionId Connect(const std::string& pod_uid, std::int32_t pid, std::uint64_t netns_inode, ShimLink* link, channel::Reason* refusal);
  // One packet of it. `truncated`: descriptors were lost on the way because the agent had no room for them. False: disconnect it.
  [[nodiscard]] bool Receive(SessionId session, std::span<const std::byte> packet, std::span<UniqueFd> fds, bool truncated);
  void Disconnected(SessionId session);
  void CountDropped() { ++stats_.shims_dropped; }
  // Where this pod's descriptors are closed; nullptr when the pod is gone.
  [[nodiscard]] ForeignFds* ForeignFdsOf(const std::string& pod_uid);

  // --- time and policy ---
  [[nodiscard]] std::uint64_t NextTick() const;  // 0: nothing to do by itself
  void Tick();
  // The policy or what it depends on changed: judges every channel and every kernel TCP connection of local pods again and cuts what is
  // not allowed any more. Gives the number of connections cut. `affected`: all others would be judged as before.
  std::uint32_t Reevaluate(const model::Affected& affected = model::Affected::Everything());

  // The pod's bandwidth annotations, as they are now. Live channels heed them at once; with a problem in them they go down to TCP, and no
  // new ones are granted. Nothing happens when the pod is unknown, or they are what they were.
  void SetBandwidth(const std::string& uid, const model::Bandwidth& bandwidth);

  // --- views ---
  [[nodiscard]] std::vector<model::ConnectionInfo> Connections();
  [[nodiscard]] BrokerStats Stats();
  [[nodiscard]] PodLoad LoadOf(const std::string& uid) const;

 private:
  struct PodRuntime {
    model::LocalPod pod;
    model::Bandwidth bandwidth;
    std::unique_ptr<PodSockets> sockets;
    std::unique_ptr<ForeignFds> foreign;
    std::set<SessionId> sessions;
  };
  struct Session {
    SessionId id = 0;
    std::string pod;
    std::int32_t pid = 0;
    ShimLink* link = nullptr;
    bool greeted = false;
    bool came_early = false;  // it wanted its channels back before a policy was known
    std::string comm;
    std::unordered_map<std::uint64_t, std::uint16_t> notes;  // last reason by cookie
    std::deque<std::uint64_t> note_order;                    // oldest first, for the bound
  };

  // Requests (broker.cc, broker_match.cc). False: the shim broke the protocol.
  bool Handle(Session& session, const channel::Hello& hello, std::span<UniqueFd> fds);
  bool Handle(Session& session, const channel::Upgrade& upgrade, std::span<UniqueFd> fds);
  bool Handle(Session& session, const channel::Release& release, std::span<UniqueFd> fds);
  bool Handle(Session& session, const channel::Reattach& reattach, std::span<UniqueFd> fds);
  bool Handle(Session& session, const channel::Cancel& cancel, std::span<UniqueFd> fds);
  bool Handle(Session& session, const channel::Note& note, std::span<UniqueFd> fds);
  bool Handle(Session& session, const WakeOffer& offer, std::span<UniqueFd> fds);
  bool Handle(Session& session, const WakeWant& want, std::span<UniqueFd> fds);
  bool Handle(Session& session, const channel::AskGrant& ask, std::span<UniqueFd> fds);
  bool ProtocolError(Session& session, const char* what);
  void RejectWith(Session& session, channel::Reason reason);

  template <typename Message>
  void Send(Session& session, const Message& message, std::shared_ptr<const UniqueFd> fd = nullptr);
  void Deny(SessionId session, std::uint64_t cookie, channel::Reason reason, std::uint32_t retry_after_ms);
  void Remember(Session& session, std::uint64_t cookie, channel::Reason reason);

  // Matching (broker_match.cc).
  struct Proof {
    End end;
    TcpSocket socket;
  };
  Result<Proof, channel::Reason> Prove(const Session& session, int fd, bool half_closed_too);
  void Match(PendingEnd first, PendingEnd second);
  [[nodiscard]] model::Flow JudgedFlow(const TcpSocket& first, const TcpSocket& second, PodRuntime* first_pod, PodRuntime* second_pod);
  [[nodiscard]] std::optional<model::Verdict> Judge(const Tuple& tuple,
                                                    const model::Flow& flow) const;  // nullopt: there is nothing to judge
  [[nodiscard]] std::optional<model::Verdict> Forbidden(const Tuple& tuple, const model::Flow& flow) const;  // nullopt: allowed
  void Grant(Channel* channel, std::uint32_t side);

  // Lifetimes (broker_lifetimes.cc).
  void ReleaseEnd(Channel* channel, std::uint32_t side);
  void CheckOrphan(ChannelId id);
  void Sweep(std::uint64_t now_ns);
  void SweepEnd(ChannelId id, std::uint32_t side, std::uint64_t now_ns);
  void Schedule(std::uint64_t at_ns);

  // Policy (broker_policy.cc).
  void Cut(Channel* channel, const std::string& why, bool by_policy);
  void WatchMemory(const RegionRecord& region);
  bool DestroySocket(const std::string& pod, const Tuple& tuple, std::uint64_t cookie);
  std::uint32_t CutChannels(const model::Affected& affected);
  void AskAgainWhoCameEarly();
  std::uint32_t CutKernelConnections(const model::Affected& affected);

  // Bandwidth (broker_bandwidth.cc).
  void ApplyBandwidth(Channel* channel, bool live);
  void SettleBandwidth(const Channel& channel);
  void ForgetBandwidth(ChannelId id);
  void CutOverLimit(const std::vector<FlowId>& over);
  [[nodiscard]] std::optional<channel::Reason> WhyNoRing(const std::string& pod, const std::string& other_pod);
  [[nodiscard]] std::string LimitedBy(const Channel& channel, std::uint32_t side) const;
  [[nodiscard]] std::array<std::string, 2> PodsOf(const Channel& channel, std::uint32_t side);

  [[nodiscard]] PodRuntime* PodOf(const std::string& uid);
  [[nodiscard]] PodRuntime* PodByAddress(const model::IpAddress& address);
  [[nodiscard]] Session* SessionOf(SessionId id);
  void Say(Event::Level level, std::string what, Event::Fields fields) const;
  // `tuple` of either end, `flow` as it was judged.
  void Record(model::FlowAction action, model::FlowPath path, const Tuple& tuple, const model::Flow& flow, const model::Verdict& verdict);

  BrokerOptions options_;
  std::unique_ptr<SocketProbe> probe_;
  std::function<std::uint64_t()> clock_;
  std::uint64_t instance_;
  SessionId next_session_ = 1;
  std::map<std::string, PodRuntime> pods_;  // by uid
  std::unordered_map<SessionId, Session> sessions_;
  PendingTable pending_;
  RevocationWatch watch_;
  ChannelTable table_;
  Pacer pacer_;
  std::map<std::pair<std::string, std::string>, std::uint64_t> over_limit_until_;  // pairs of pods that stay on TCP, the smaller uid first
  std::set<ChannelId> orphans_;  // channels with an end that is not released and whose process has gone
  ChannelId swept_to_ = 0;       // the sweep goes on behind this one
  std::uint64_t next_sweep_ns_ = 0;
  std::uint64_t next_tick_ns_ = 0;
  BrokerStats stats_;
};

// "policy ns/name, ingress rule 2" of the direction that forbids; for logs.
std::string DecidedBy(const model::Verdict& verdict);

}  // namespace vsocket::broker
