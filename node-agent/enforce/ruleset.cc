#include "node-agent/enforce/ruleset.h"

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

template <typename Element>
void AppendSet(std::string& out, const std::string& name, const std::string& type, const std::vector<Element>& elements) {
  out += "  set " + name + " {\n    type " + type + "\n    flags interval\n";
  if (!elements.empty()) {
    out += "    elements = {\n";
    for (const Element& element : elements) out += "      " + Text(element) + ",\n";
    out += "    }\n";
  }
  out += "  }\n";
}

void AppendDirectionSets(std::string& out, const std::string& prefix, const model::DirectionAllowList& list) {
  for (const bool ipv4 : {true, false}) {
    const ElementSets sets = Disjoint(list.entries, ipv4);
    const std::string family = ipv4 ? "4" : "6";
    const std::string type = ipv4 ? "ipv4_addr" : "ipv6_addr";
    AppendSet(out, prefix + "_any" + family, type, sets.any);
    AppendSet(out, prefix + "_port" + family, type + " . inet_proto . inet_service", sets.ports);
  }
}

void AppendNodeSets(std::string& out, const std::vector<model::IpAddress>& addresses) {
  for (const bool ipv4 : {true, false}) {
    std::vector<model::AddressRange> ranges;
    for (const model::IpAddress& address : addresses) {
      if (address.IsV4() == ipv4) ranges.push_back({address, address});
    }
    AppendSet(out, ipv4 ? "node4" : "node6", ipv4 ? "ipv4_addr" : "ipv6_addr", model::Merge(std::move(ranges)));
  }
}

// A chain that accepts what the direction's sets allow and returns otherwise. `remote` is saddr or daddr, `port` sport or dport.
void AppendMatchChain(std::string& out, const std::string& name, const std::string& sets, bool isolated, bool node_allowed,
                      const std::string& remote, const std::string& port) {
  out += "  chain " + name + " {\n";
  if (!isolated) {
    out += "    accept\n  }\n";
    return;
  }
  for (const std::string family : {"4", "6"}) {
    const std::string address = (family == "4" ? "ip " : "ip6 ") + remote;
    if (node_allowed) out += "    " + address + " @node" + family + " accept\n";
    out += "    " + address + " @" + sets + "_any" + family + " accept\n";
    out += "    " + address + " . meta l4proto . th " + port + " @" + sets + "_port" + family + " accept\n";
  }
  out += "  }\n";
}

// The order of the rules is the argument:
// - A fresh SYN opens a connection, in either state of conntrack's memory of the same four numbers; it is judged, never waved through.
// - ICMP errors about a known flow pass (after the SYN rule, so that no helper's expectation opens a connection).
// - Any other segment of a connection that conntrack knows passes.
// - A segment that conntrack takes for new belongs to a connection older than the table (or to none, and then no socket takes it). Which
//   end opened it cannot be seen, so it passes when either may have. That opens nothing: a remote to which this pod may connect anyway is
//   let in, on the same port, and no socket is opened without a SYN.
// - A datagram or any other packet is judged in the direction of its flow, each time.
void AppendHook(std::string& out, const std::string& hook, const std::string& device) {
  out += "  chain " + hook + " {\n    type filter hook " + hook + " priority filter; policy accept;\n";
  out += "    " + device + " \"lo\" accept\n";
  out += "    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert } accept\n";
  out += "    tcp flags & (fin | syn | rst | ack) == syn goto " + hook + "_judge\n";
  out += "    ct state related accept\n";
  out += "    meta l4proto tcp ct state established accept\n";
  out += "    meta l4proto tcp jump " + hook + "_reply\n";
  out += "    meta l4proto != tcp ct direction reply goto " + hook + "_answer\n";
  out += "    goto " + hook + "_judge\n  }\n";
  out += "  chain " + hook + "_judge {\n    jump " + hook + "_match\n    goto refuse\n  }\n";
  out += "  chain " + hook + "_answer {\n    jump " + hook + "_reply\n    goto refuse\n  }\n";
}

}  // namespace

std::string RemovalText() {
  return "add table inet vsocket\ndelete table inet vsocket\n";
}

std::string RulesetText(const model::AllowList& allow) {
  std::string out = RemovalText();
  if (!allow.ingress.isolated && !allow.egress.isolated) return out;
  out += "table inet vsocket {\n";
  AppendNodeSets(out, allow.node_addresses);
  AppendDirectionSets(out, "in", allow.ingress);
  AppendDirectionSets(out, "out", allow.egress);
  out += "  chain refuse {\n    meta l4proto tcp reject with tcp reset\n    drop\n  }\n";
  // As the first packet of a flow, and as an answer to a flow of the other direction.
  AppendMatchChain(out, "input_match", "in", allow.ingress.isolated, true, "saddr", "dport");
  AppendMatchChain(out, "input_reply", "out", allow.egress.isolated, false, "saddr", "sport");
  AppendMatchChain(out, "output_match", "out", allow.egress.isolated, false, "daddr", "dport");
  AppendMatchChain(out, "output_reply", "in", allow.ingress.isolated, true, "daddr", "sport");
  AppendHook(out, "input", "iifname");
  AppendHook(out, "output", "oifname");
  out += "}\n";
  return out;
}

}  // namespace vsocket::enforce
