// A PeerHost that does as the test says and remembers what it was told, and a cluster of pods at fixed places.
// Thread safety: none, but for what says otherwise.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "node-agent/peer/agreement.h"

namespace vsocket::peer::testing {

class FakeHost : public model::PeerHost {
 public:
  // What the test sets.
  std::optional<model::PeerRefusal> judgement;  // nullopt: allowed
  bool can_prepare = true, can_complete = true;

  // What was told, in order: "granted b/1", "refused shop/x: text".
  std::vector<std::string> told;
  std::map<model::PeerChannel, std::string> far_setups;
  std::set<model::PeerChannel> prepared, granted;
  std::vector<model::PeerNote> notes;

  std::optional<model::PeerRefusal> Judge(const model::PeerEnd& own, const model::PeerEnd& far) override {
    told.push_back("judge " + own.pod + " with " + far.pod);
    return judgement;
  }
  std::optional<std::string> Prepare(const model::PeerChannel& channel, const model::PeerEnd& own, const model::PeerEnd&,
                                     const std::string& transport, const std::string* far_setup, model::PeerRefusal* why) override {
    if (!can_prepare) {
      *why = {channel::Reason::kNoMemory, "no memory", 0};
      return std::nullopt;
    }
    prepared.insert(channel);
    if (far_setup != nullptr) far_setups[channel] = *far_setup;
    return transport + " of " + own.pod;
  }
  bool Complete(const model::PeerChannel& channel, const std::string& far_setup) override {
    far_setups[channel] = far_setup;
    return can_complete;
  }
  void Granted(const model::PeerChannel& channel) override {
    told.push_back("granted " + Name(channel));
    granted.insert(channel);
  }
  void Closed(const model::PeerChannel& channel, const model::PeerRefusal& why) override {
    told.push_back("closed " + Name(channel) + ": " + why.text);
    prepared.erase(channel);
    granted.erase(channel);
  }
  void Refused(const model::PeerEnd& own, const model::PeerRefusal& why) override {
    told.push_back("refused " + own.pod + ": " + why.text);
    refusals.push_back(why);
  }
  void Noted(const model::PeerChannel&, const model::PeerNote& note) override { notes.push_back(note); }
  void PeerUp(const std::string& node, std::uint64_t, const std::string& transport) override {
    told.push_back("up " + node + " by " + transport);
  }
  void PeerDown(const std::string& node, const std::string& why) override { told.push_back("down " + node + ": " + why); }
  void LinkSetup(const std::string& node, const std::string& transport, const std::string& data) override {
    told.push_back("link " + node + " " + transport + " " + data);
  }

  std::vector<model::PeerRefusal> refusals;

  [[nodiscard]] bool Heard(const std::string& part) const {
    for (const std::string& line : told) {
      if (line.find(part) != std::string::npos) return true;
    }
    return false;
  }

 private:
  static std::string Name(const model::PeerChannel& channel) { return channel.node + "/" + std::to_string(channel.number); }
};

class FakeCluster : public Whereabouts {
 public:
  std::map<model::IpAddress, model::PodPlace> pods;
  std::map<model::IpAddress, std::string> nodes;

  [[nodiscard]] std::optional<model::PodPlace> PodAt(const model::IpAddress& ip) const override {
    const auto at = pods.find(ip);
    return at == pods.end() ? std::nullopt : std::optional(at->second);
  }
  [[nodiscard]] bool IsAddressOf(const std::string& node, const model::IpAddress& ip) const override {
    const auto at = nodes.find(ip);
    return at != nodes.end() && at->second == node;
  }
};

inline model::IpAddress Ip(const char* text) {
  return *model::IpAddress::Parse(text);
}

// Two nodes, "a" (10.1.0.0/16, the leader) and "b" (10.2.0.0/16), three pods on each: shop/a1 is 10.1.0.1, and so on.
inline FakeCluster TwoNodes() {
  FakeCluster cluster;
  for (const char* node : {"a", "b"}) {
    const std::string number = node == std::string("a") ? "1" : "2";
    for (const char* pod : {"1", "2", "3"})
      cluster.pods[Ip(("10." + number + ".0." + pod).c_str())] = {node, "shop/" + (std::string(node) + pod)};
    cluster.nodes[Ip(("192.168.0." + number).c_str())] = node;
  }
  return cluster;
}

// An end of pod `pod` ("a1"), whose socket has these addresses; the cookie is its port unless given.
inline model::PeerEnd EndOf(const std::string& pod, const char* ip, std::uint16_t port, const char* remote_ip, std::uint16_t remote_port,
                            std::uint64_t cookie = 0) {
  model::PeerEnd end;
  end.pod = "shop/" + pod;
  end.pod_uid = "uid-" + pod;
  end.netns_cookie = 7;
  end.socket_cookie = cookie != 0 ? cookie : port;
  end.socket = {{Ip(ip), port}, {Ip(remote_ip), remote_port}};
  end.wire = end.socket;
  return end;
}
// The two ends of one connection from pod a1 to pod b1.
inline model::PeerEnd ClientEnd(std::uint16_t port = 40000) {
  return EndOf("a1", "10.1.0.1", port, "10.2.0.1", 80);
}
inline model::PeerEnd ServerEnd(std::uint16_t port = 40000, std::uint64_t cookie = 0) {
  model::PeerEnd end = EndOf("b1", "10.2.0.1", 80, "10.1.0.1", port, cookie != 0 ? cookie : 100000 + port);
  end.listens = true;
  return end;
}

}  // namespace vsocket::peer::testing
