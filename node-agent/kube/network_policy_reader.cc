#include "node-agent/kube/network_policy_reader.h"

#include <algorithm>
#include <utility>

#include "node-agent/model/address_range.h"

namespace vsocket::kube {
namespace {

std::string At(const std::string& path, std::size_t index) {
  return path + "[" + std::to_string(index) + "]";
}

std::optional<model::SelectorTerm::Operator> ParseOperator(const std::string& text) {
  using Operator = model::SelectorTerm::Operator;
  if (text == "In") return Operator::kIn;
  if (text == "NotIn") return Operator::kNotIn;
  if (text == "Exists") return Operator::kExists;
  if (text == "DoesNotExist") return Operator::kDoesNotExist;
  return std::nullopt;
}

void ReadTerm(const YamlNode& node, const std::string& path, FieldReader& reader, model::LabelSelector& selector) {
  reader.OnlyFields(node, path, {"key", "operator", "values"});
  model::SelectorTerm term;
  const auto key = reader.Text(node.Find("key"), path + ".key");
  if (!key || !IsLabelKey(*key)) reader.Error(node.line, path + ".key", "must be a label key such as app or example.com/app");
  term.key = key.value_or("");
  const auto op = reader.Text(node.Find("operator"), path + ".operator");
  const auto parsed = op ? ParseOperator(*op) : std::nullopt;
  if (!parsed) {
    reader.Error(node.line, path + ".operator", "must be In, NotIn, Exists or DoesNotExist");
    return;
  }
  term.op = *parsed;
  if (const YamlNode* values = reader.Sequence(node.Find("values"), path + ".values")) {
    for (std::size_t i = 0; i < values->items.size(); ++i) {
      const auto value = reader.Text(values->items[i].get(), At(path + ".values", i));
      if (value && !IsLabelValue(*value))
        reader.Error(values->items[i]->line, At(path + ".values", i), "\"" + *value + "\" is not a label value");
      if (!value && values->items[i]->kind == YamlNode::Kind::kNull) {
        reader.Error(values->items[i]->line, At(path + ".values", i), "must be a text, is nothing");
      }
      term.values.push_back(value.value_or(""));
    }
  }
  const bool wants_values = term.op == model::SelectorTerm::Operator::kIn || term.op == model::SelectorTerm::Operator::kNotIn;
  if (wants_values && term.values.empty()) reader.Error(node.line, path + ".values", "must not be empty for the operator " + *op);
  if (!wants_values && !term.values.empty()) reader.Error(node.line, path + ".values", "must be empty for the operator " + *op);
  selector.match_expressions.push_back(std::move(term));
}

// `node` is a map.
model::LabelSelector ReadSelector(const YamlNode& node, const std::string& path, FieldReader& reader) {
  model::LabelSelector selector;
  reader.OnlyFields(node, path, {"matchLabels", "matchExpressions"});
  selector.match_labels = reader.TextMap(node.Find("matchLabels"), path + ".matchLabels");
  for (const auto& [key, value] : selector.match_labels) {
    const int line = node.Find("matchLabels")->line;
    if (!IsLabelKey(key)) reader.Error(line, path + ".matchLabels", "\"" + key + "\" is not a label key");
    if (!IsLabelValue(value)) reader.Error(line, path + ".matchLabels." + key, "\"" + value + "\" is not a label value");
  }
  if (const YamlNode* terms = reader.Sequence(node.Find("matchExpressions"), path + ".matchExpressions")) {
    for (std::size_t i = 0; i < terms->items.size(); ++i) {
      const std::string at = At(path + ".matchExpressions", i);
      if (terms->items[i]->kind == YamlNode::Kind::kMap) {
        ReadTerm(*terms->items[i], at, reader, selector);
      } else {
        reader.Error(terms->items[i]->line, at, "must be a map with key, operator and values");
      }
    }
  }
  return selector;
}

std::optional<model::IpBlock> ReadIpBlock(const YamlNode& node, const std::string& path, FieldReader& reader) {
  reader.OnlyFields(node, path, {"cidr", "except"});
  const auto text = reader.Text(node.Find("cidr"), path + ".cidr");
  const auto cidr = text ? model::ParseCidr(*text) : std::nullopt;
  if (!cidr) {
    reader.Error(node.line, path + ".cidr", text ? "\"" + *text + "\" is not a CIDR such as 10.0.0.0/8" : "is required");
    return std::nullopt;
  }
  model::IpBlock block{*cidr, {}};
  if (const YamlNode* except = reader.Sequence(node.Find("except"), path + ".except")) {
    for (std::size_t i = 0; i < except->items.size(); ++i) {
      const std::string at = At(path + ".except", i);
      const auto hole_text = reader.Text(except->items[i].get(), at);
      const auto hole = hole_text ? model::ParseCidr(*hole_text) : std::nullopt;
      if (!hole) {
        reader.Error(except->items[i]->line, at, "must be a CIDR such as 10.1.0.0/16");
      } else if (!model::Covers(*cidr, *hole) || hole->prefix == cidr->prefix) {
        reader.Error(except->items[i]->line, at, "must be a strict part of " + *text);
      } else {
        block.except.push_back(*hole);
      }
    }
  }
  return block;
}

void ReadPeer(const YamlNode& node, const std::string& path, FieldReader& reader, model::PolicyRule& rule) {
  model::PolicyPeer peer;
  reader.OnlyFields(node, path, {"podSelector", "namespaceSelector", "ipBlock"});
  if (const YamlNode* selector = reader.Map(node.Find("podSelector"), path + ".podSelector")) {
    peer.pod_selector = ReadSelector(*selector, path + ".podSelector", reader);
  }
  if (const YamlNode* selector = reader.Map(node.Find("namespaceSelector"), path + ".namespaceSelector")) {
    peer.namespace_selector = ReadSelector(*selector, path + ".namespaceSelector", reader);
  }
  const YamlNode* block = reader.Map(node.Find("ipBlock"), path + ".ipBlock");
  if (block != nullptr) {
    peer.ip_block = ReadIpBlock(*block, path + ".ipBlock", reader);
    if (peer.pod_selector || peer.namespace_selector)
      reader.Error(block->line, path, "ipBlock cannot stand beside podSelector or namespaceSelector");
  } else if (!peer.pod_selector && !peer.namespace_selector) {
    reader.Error(node.line, path, "must have a podSelector, a namespaceSelector or an ipBlock (write {} to select all)");
  }
  rule.peers.push_back(std::move(peer));
}

void ReadPort(const YamlNode& node, const std::string& path, FieldReader& reader, model::PolicyRule& rule) {
  model::PolicyPort port;
  reader.OnlyFields(node, path, {"protocol", "port", "endPort"});
  if (const auto text = reader.Text(node.Find("protocol"), path + ".protocol")) {
    const auto protocol = ParseProtocol(*text);
    if (!protocol) reader.Error(node.Find("protocol")->line, path + ".protocol", "\"" + *text + "\" is not TCP, UDP or SCTP");
    port.protocol = protocol.value_or(model::Protocol::kTcp);
  }
  const YamlNode* which = node.Find("port");
  if (which != nullptr && which->kind == YamlNode::Kind::kScalar && TypeOf(*which) == ScalarType::kString) {
    port.name = which->scalar;
    if (!IsPortName(port.name)) {
      reader.Error(
          which->line, path + ".port",
          "\"" + port.name + "\" is not a port name: at most 15 of a-z, 0-9 and -, with a letter (a number is written without quotes)");
    }
  } else if (const auto number = reader.Integer(which, path + ".port", 1, 65535)) {
    port.number = static_cast<std::uint16_t>(*number);
  }
  if (const auto end = reader.Integer(node.Find("endPort"), path + ".endPort", 1, 65535)) {
    const int line = node.Find("endPort")->line;
    if (!port.number) {
      reader.Error(line, path + ".endPort", "needs a numeric port");
    } else if (*end < *port.number) {
      reader.Error(line, path + ".endPort", "must not be less than port " + std::to_string(*port.number));
    }
    port.end = static_cast<std::uint16_t>(*end);
  }
  rule.ports.push_back(std::move(port));
}

using ReadItem = void (*)(const YamlNode&, const std::string&, FieldReader&, model::PolicyRule&);

void ReadItems(const YamlNode* list, const std::string& path, FieldReader& reader, model::PolicyRule& rule, ReadItem read) {
  const YamlNode* items = reader.Sequence(list, path);
  if (items == nullptr) return;
  for (std::size_t i = 0; i < items->items.size(); ++i) {
    if (items->items[i]->kind == YamlNode::Kind::kMap) {
      read(*items->items[i], At(path, i), reader, rule);
    } else {
      // Also for a null item: left out, it would turn a list of one into an empty one, which means everyone.
      reader.Error(items->items[i]->line, At(path, i), "must be a map");
    }
  }
}

std::vector<model::PolicyRule> ReadRules(const YamlNode* list, const std::string& path, const char* peers_field, FieldReader& reader) {
  std::vector<model::PolicyRule> rules;
  const YamlNode* sequence = reader.Sequence(list, path);
  if (sequence == nullptr) return rules;
  for (std::size_t i = 0; i < sequence->items.size(); ++i) {
    const YamlNode& item = *sequence->items[i];
    const std::string at = At(path, i);
    if (item.kind != YamlNode::Kind::kMap) {
      reader.Error(item.line, at, std::string("must be a map with ports and ") + peers_field + " (write {} to allow all)");
      continue;
    }
    reader.OnlyFields(item, at, {"ports", peers_field});
    model::PolicyRule& rule = rules.emplace_back();
    ReadItems(item.Find(peers_field), at + "." + peers_field, reader, rule, ReadPeer);
    ReadItems(item.Find("ports"), at + ".ports", reader, rule, ReadPort);
  }
  return rules;
}

void ReadPolicyTypes(const YamlNode& spec, FieldReader& reader, model::NetworkPolicy& policy, std::vector<std::string>& notes) {
  const YamlNode* types = reader.Sequence(spec.Find("policyTypes"), "spec.policyTypes");
  if (types == nullptr || types->items.empty()) {
    policy.isolates_ingress = true;
    policy.isolates_egress = !policy.egress.empty();
    return;
  }
  policy.isolates_ingress = policy.isolates_egress = false;
  if (types->items.size() > 2) reader.Error(types->line, "spec.policyTypes", "must not have more than two items");
  for (std::size_t i = 0; i < types->items.size(); ++i) {
    const auto type = reader.Text(types->items[i].get(), At("spec.policyTypes", i));
    if (type == "Ingress") {
      policy.isolates_ingress = true;
    } else if (type == "Egress") {
      policy.isolates_egress = true;
    } else {
      reader.Error(types->items[i]->line, At("spec.policyTypes", i), "must be Ingress or Egress");
    }
  }
  if (!policy.isolates_ingress && !policy.ingress.empty()) notes.push_back("its ingress rules have no effect: policyTypes has no Ingress");
  if (!policy.isolates_egress && !policy.egress.empty()) notes.push_back("its egress rules have no effect: policyTypes has no Egress");
}

}  // namespace

std::optional<model::Protocol> ParseProtocol(const std::string& text) {
  if (text == "TCP") return model::Protocol::kTcp;
  if (text == "UDP") return model::Protocol::kUdp;
  if (text == "SCTP") return model::Protocol::kSctp;
  return std::nullopt;
}

model::NetworkPolicy ReadNetworkPolicySpec(const YamlNode& object, FieldReader& reader, std::vector<std::string>& notes) {
  model::NetworkPolicy policy;
  reader.OnlyFields(object, "", {"apiVersion", "kind", "metadata", "spec", "status"});
  const YamlNode* spec = reader.Map(object.Find("spec"), "spec");
  if (spec == nullptr) {
    reader.Error(object.line, "spec", "is required");
    return policy;
  }
  reader.OnlyFields(*spec, "spec", {"podSelector", "policyTypes", "ingress", "egress"});
  if (const YamlNode* selector = reader.Map(spec->Find("podSelector"), "spec.podSelector")) {
    policy.pod_selector = ReadSelector(*selector, "spec.podSelector", reader);
  } else {
    reader.Error(spec->line, "spec.podSelector", "is required (write {} to select every pod of the namespace)");
  }
  policy.ingress = ReadRules(spec->Find("ingress"), "spec.ingress", "from", reader);
  policy.egress = ReadRules(spec->Find("egress"), "spec.egress", "to", reader);
  ReadPolicyTypes(*spec, reader, policy, notes);
  return policy;
}

model::NetworkPolicy QuarantinePolicy(const YamlNode& object) {
  model::NetworkPolicy policy;
  policy.isolates_ingress = policy.isolates_egress = true;
  const YamlNode* spec = object.Find("spec");
  const YamlNode* selector = spec == nullptr ? nullptr : spec->Find("podSelector");
  if (selector == nullptr || selector->kind != YamlNode::Kind::kMap) return policy;
  std::vector<YamlError> errors;
  FieldReader reader(errors);
  model::LabelSelector readable = ReadSelector(*selector, "", reader);
  if (errors.empty()) policy.pod_selector = std::move(readable);
  return policy;
}

}  // namespace vsocket::kube
