#include "node-agent/enforce/ruleset.h"

#include <utility>
#include <vector>

#include "node-agent/enforce/element_sets.h"

namespace vsocket::enforce {
namespace {

const char* ProtocolName(model::Protocol protocol) {
  switch (protocol) {
    case model::Protocol::kTcp:
      return "tcp";
    case model::Protocol::kUdp:
      return "udp";
    case model::Protocol::kSctp:
      return "sctp";
  }
  return "tcp";
}

std::string Text(const model::AddressRange& range) {
  return range.first == range.last ? range.first.ToString() : range.first.ToString() + "-" + range.last.ToString();
}

std::string Text(const PortElement& element) {
  const std::string ports = element.first_port == element.last_port
                                ? std::to_string(element.first_port)
                                : std::to_string(element.first_port) + "-" + std::to_string(element.last_port);
  return Text(element.remote) + " . " + ProtocolName(element.protocol) + " . " + ports;
}

// The text of one slot's sets and chains. Names end in the slot's letter.
class SlotWriter {
 public:
  SlotWriter(const RulesetInput& input, Slot slot) : input_(input), suffix_(slot == Slot::kA ? "_a" : "_b") {}

  std::string Write() {
    AppendNodeSets();
    AppendDirectionSets("in", input_.allow.ingress.entries);
    AppendDirectionSets("out", input_.allow.egress.entries);
    AppendDirectionSets("service", input_.services.entries);
    AppendServiceAddresses();
    const bool in = input_.allow.ingress.isolated, out = input_.allow.egress.isolated;
    BeginChain("refuse");
    Rule("meta l4proto tcp reject with tcp reset");
    Rule("drop");
    EndChain();
    // As the first packet of a flow, and as an answer to a flow of the other direction.
    AppendMatchChain("input_match", "in", in, "saddr", "dport");
    AppendMatchChain("input_reply", "out", out, "saddr", "sport");
    AppendMatchChain("output_match", "out", out, "daddr", "dport");
    AppendMatchChain("output_reply", "in", in, "daddr", "sport");
    AppendTell("input_tell", "saddr", "dport", kDeniedIn);
    AppendTell("input_tell_answer", "saddr", "sport", kDeniedInAnswer);
    AppendTell("output_tell", "daddr", "dport", kDeniedOut);
    AppendTell("output_tell_answer", "daddr", "sport", kDeniedOutAnswer);
    AppendHook("input", "iifname");
    AppendHook("output", "oifname");
    // What was in the slot goes first. Chains before sets: a set that a rule uses cannot change its mind.
    std::string text = "add table inet vsocket\n";
    for (const std::string& name : chains_) text += "add chain inet vsocket " + name + "\nflush chain inet vsocket " + name + "\n";
    for (const auto& [name, head] : sets_) {
      text += "add set inet vsocket " + name + " { " + head + " }\nflush set inet vsocket " + name + "\n";
    }
    return text + "table inet vsocket {\n" + out_ + "}\n";
  }

 private:
  [[nodiscard]] std::string Named(const std::string& name) const { return name + suffix_; }
  void Rule(const std::string& rule) { out_ += "    " + rule + "\n"; }
  void BeginChain(const std::string& name) {
    chains_.push_back(Named(name));
    out_ += "  chain " + Named(name) + " {\n";
  }
  void EndChain() { out_ += "  }\n"; }

  template <typename Element>
  void AppendSet(const std::string& name, const std::string& type, const std::vector<Element>& elements) {
    sets_.push_back({Named(name), "type " + type + "; flags interval;"});
    if (elements.empty()) return;
    out_ += "  set " + Named(name) + " {\n    type " + type + "\n    flags interval\n    elements = {\n";
    for (const Element& element : elements) out_ += "      " + Text(element) + ",\n";
    out_ += "    }\n  }\n";
  }

  void AppendDirectionSets(const std::string& prefix, const std::vector<model::AllowEntry>& entries) {
    for (const bool ipv4 : {true, false}) {
      const ElementSets sets = Disjoint(entries, ipv4);
      const std::string family = ipv4 ? "4" : "6";
      const std::string type = ipv4 ? "ipv4_addr" : "ipv6_addr";
      AppendSet(prefix + "_any" + family, type, sets.any);
      AppendSet(prefix + "_port" + family, type + " . inet_proto . inet_service", sets.ports);
    }
  }

  void AppendAddressSets(const std::string& name, const std::vector<model::IpAddress>& addresses) {
    for (const bool ipv4 : {true, false}) {
      std::vector<model::AddressRange> ranges;
      for (const model::IpAddress& address : addresses) {
        if (address.IsV4() == ipv4) ranges.push_back({address, address});
      }
      AppendSet(name + (ipv4 ? "4" : "6"), ipv4 ? "ipv4_addr" : "ipv6_addr", model::Merge(std::move(ranges)));
    }
  }
  void AppendNodeSets() { AppendAddressSets("node", input_.allow.node_addresses); }
  void AppendServiceAddresses() { AppendAddressSets("services", input_.services.addresses); }

  // A chain that accepts what the direction's sets allow and returns otherwise. `remote` is saddr or daddr, `port` sport or dport.
  void AppendMatchChain(const std::string& name, const std::string& sets, bool isolated, const std::string& remote,
                        const std::string& port) {
    BeginChain(name);
    if (!isolated) Rule("accept");
    for (const std::string family : {"4", "6"}) {
      if (!isolated) break;
      const std::string address = (family == "4" ? "ip " : "ip6 ") + remote;
      const std::string flow = address + " . meta l4proto . th " + port + " @";
      if (sets == "in") {
        Rule(address + " @" + Named("node" + family) + " accept");
      } else {
        Rule(flow + Named("service_port" + family) + " accept");
        Rule(address + " @" + Named("services" + family) + " return");
      }
      Rule(address + " @" + Named(sets + "_any" + family) + " accept");
      Rule(flow + Named(sets + "_port" + family) + " accept");
    }
    EndChain();
  }

  // What is told already is not told again for a while: that is found out first, because in a flood it is what every packet pays. A set
  // that is full remembers nothing more, and the limit alone holds.
  void AppendTell(const std::string& name, const std::string& remote, const std::string& port, const char* prefix) {
    if (!input_.tell) return;
    const std::string told = name + "_told";
    for (const std::string family : {"4", "6"}) {
      const std::string head = (family == "4" ? std::string("type ipv4_addr") : std::string("type ipv6_addr")) +
                               " . inet_proto . inet_service; size 1024; flags dynamic,timeout; timeout " +
                               std::to_string(kToldAgainSeconds) + "s;";
      sets_.push_back({Named(told + family), head});
    }
    const auto key = [&](const std::string& family) { return (family == "4" ? "ip " : "ip6 ") + remote + " . meta l4proto . th " + port; };
    BeginChain(name);
    Rule("meta l4proto != { tcp, udp, sctp } return");
    Rule("meta l4proto tcp tcp flags & (fin | syn | rst | ack) != syn return");
    for (const std::string family : {"4", "6"}) Rule(key(family) + " @" + Named(told + family) + " return");
    Rule("limit rate over " + std::to_string(kToldASecond) + "/second burst " + std::to_string(2 * kToldASecond) + " packets return");
    for (const std::string family : {"4", "6"}) Rule("add @" + Named(told + family) + " { " + key(family) + " }");
    Rule("log prefix \"" + std::string(prefix) + "\" group " + std::to_string(kDenialGroup) + " snaplen 96");
    EndChain();
  }

  // The order of the rules is the argument:
  // - A fresh SYN opens a connection, in either state of conntrack's memory of the same four numbers; it is judged, never waved through.
  // - ICMP errors about a known flow pass (after the SYN rule, so that no helper's expectation opens a connection).
  // - Any other segment of a connection that conntrack knows passes.
  // - A segment that conntrack takes for new belongs to a connection older than the table (or to none, and then no socket takes it). Which
  //   end opened it cannot be seen, so it passes when either may have. That opens nothing: a remote to which this pod may connect anyway
  //   is let in, on the same port, and no socket is opened without a SYN.
  // - A datagram or any other packet is judged in the direction of its flow, each time.
  void AppendHook(const std::string& hook, const std::string& device) {
    const auto refuse = [&](const std::string& chain, const std::string& match, const std::string& tell) {
      BeginChain(hook + chain);
      Rule("jump " + Named(hook + match));
      if (input_.tell) Rule("jump " + Named(hook + tell));
      Rule("goto " + Named("refuse"));
      EndChain();
    };
    refuse("_judge", "_match", "_tell");
    refuse("_answer", "_reply", "_tell_answer");
    BeginChain(hook);
    Rule(device + " \"lo\" accept");
    Rule("icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert } accept");
    Rule("tcp flags & (fin | syn | rst | ack) == syn goto " + Named(hook + "_judge"));
    Rule("ct state related accept");
    Rule("meta l4proto tcp ct state established accept");
    Rule("meta l4proto tcp jump " + Named(hook + "_reply"));
    Rule("meta l4proto != tcp ct direction reply goto " + Named(hook + "_answer"));
    Rule("goto " + Named(hook + "_judge"));
    EndChain();
  }

  struct SetHead {
    std::string name, head;
  };
  const RulesetInput& input_;
  const std::string suffix_;
  std::vector<std::string> chains_;
  std::vector<SetHead> sets_;
  std::string out_;
};

}  // namespace

std::string RemovalText() {
  return "add table inet vsocket\ndelete table inet vsocket\n";
}

std::string PrepareText(const RulesetInput& input, Slot slot) {
  return SlotWriter(input, slot).Write();
}

std::string ActivateText(Slot slot) {
  const std::string suffix = slot == Slot::kA ? "_a" : "_b";
  std::string text = "table inet vsocket {\n";
  for (const std::string hook : {"input", "output"}) {
    text += "  chain " + hook + " {\n    type filter hook " + hook + " priority filter; policy accept;\n  }\n";
  }
  text += "}\n";
  for (const std::string hook : {"input", "output"}) {
    text += "flush chain inet vsocket " + hook + "\nadd rule inet vsocket " + hook + " goto " + hook + suffix + "\n";
  }
  return text;
}

std::optional<Slot> ActiveSlot(const std::string& listing) {
  if (listing.find("goto input_a\n") != std::string::npos) return Slot::kA;
  if (listing.find("goto input_b\n") != std::string::npos) return Slot::kB;
  return std::nullopt;
}

}  // namespace vsocket::enforce
