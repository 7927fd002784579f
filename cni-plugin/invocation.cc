#include "cni-plugin/invocation.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "cni-plugin/json_member.h"
#include "proto/spool.h"
#include "proto/version.h"

namespace vsocket::cni {
namespace {

using nlohmann::json;

constexpr std::int64_t kLongestTimeoutMs = 60'000;
constexpr std::size_t kLongestName = 200;    // of what becomes part of a file name (255 with its ending)
constexpr std::size_t kLongestIfname = 15;   // IFNAMSIZ - 1
constexpr std::size_t kLongestSocket = 107;  // unix(7)
constexpr const char* kAttachmentsKey = "cni.dev/valid-attachments";

Failure<Error> Fail(Code code, std::string message, std::string details = "") {
  return Failure<Error>({code, std::move(message), std::move(details)});
}

bool IsAlphanumeric(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

// The spec's container id; Kubernetes' names and uids are of the same kind.
bool IsName(std::string_view text) {
  return !text.empty() && text.size() <= kLongestName && IsAlphanumeric(text[0]) &&
         std::all_of(text.begin(), text.end(), [](char c) { return IsAlphanumeric(c) || c == '_' || c == '.' || c == '-'; });
}

// As the kernel has it (dev_valid_name); the spec says the same.
bool IsIfname(std::string_view text) {
  return !text.empty() && text.size() <= kLongestIfname && text != "." && text != ".." &&
         std::none_of(text.begin(), text.end(),
                      [](char c) { return c == '/' || c == ':' || c == ' ' || (c >= '\t' && c <= '\r') || c == '\0'; });
}

std::optional<Command> CommandOf(const std::string& name) {
  if (name == "ADD") return Command::kAdd;
  if (name == "DEL") return Command::kDel;
  if (name == "CHECK") return Command::kCheck;
  if (name == "STATUS") return Command::kStatus;
  if (name == "GC") return Command::kGc;
  if (name == "VERSION") return Command::kVersion;
  return std::nullopt;
}

// For the details of an error. Nothing nested: printing recurses, and a config may nest as deep as it is long.
std::string Show(const json& value) {
  if (value.is_structured()) return std::string("is an ") + value.type_name();
  return value.dump(-1, ' ', true);
}

bool HasAttachment(Command command) {
  return command == Command::kAdd || command == Command::kDel || command == Command::kCheck;
}
bool WiresPod(Command command) {
  return command == Command::kAdd || command == Command::kCheck;
}

std::optional<Error> CheckEnvironment(Command command, const Environment& environment) {
  if (!HasAttachment(command)) return std::nullopt;
  std::string missing;
  const auto need = [&](const std::string& value, const char* name) {
    if (value.empty()) missing += (missing.empty() ? "" : ", ") + std::string(name);
  };
  need(environment.container_id, "CNI_CONTAINERID");
  need(environment.ifname, "CNI_IFNAME");
  if (WiresPod(command)) need(environment.netns, "CNI_NETNS");  // DEL: the namespace may be gone, and the variable with it
  if (!missing.empty()) return Error{Code::kInvalidEnvironment, "missing in the environment: " + missing, ""};
  if (!IsName(environment.container_id)) {
    return Error{Code::kInvalidEnvironment, "CNI_CONTAINERID is not a container id", environment.container_id};
  }
  if (!IsIfname(environment.ifname)) return Error{Code::kInvalidEnvironment, "CNI_IFNAME is not an interface name", environment.ifname};
  return std::nullopt;
}

// CNI_ARGS is KEY=VALUE;KEY=VALUE. Keys that are not ours are somebody else's.
std::optional<Error> ReadIdentity(const std::string& args, Invocation& invocation) {
  const std::pair<std::string_view, std::string*> ours[] = {
      {"K8S_POD_NAMESPACE", &invocation.pod_ns}, {"K8S_POD_NAME", &invocation.pod_name}, {"K8S_POD_UID", &invocation.pod_uid}};
  std::string_view rest = args;
  while (!rest.empty()) {
    const std::string_view pair = rest.substr(0, rest.find(';'));
    rest.remove_prefix(std::min(rest.size(), pair.size() + 1));
    if (pair.empty()) continue;
    const std::size_t equals = pair.find('=');
    if (equals == std::string_view::npos || equals == 0) {
      return Error{Code::kInvalidEnvironment, "CNI_ARGS is not a list of KEY=VALUE", std::string(pair)};
    }
    for (const auto& [key, target] : ours) {
      if (pair.substr(0, equals) != key) continue;
      *target = pair.substr(equals + 1);
      if (!target->empty() && !IsName(*target)) {
        return Error{Code::kInvalidEnvironment, std::string(key) + " in CNI_ARGS is not a name", *target};
      }
    }
  }
  if (invocation.pod_ns.empty() != invocation.pod_name.empty()) {
    return Error{Code::kInvalidEnvironment, "CNI_ARGS has only one of K8S_POD_NAMESPACE and K8S_POD_NAME", args};
  }
  if (invocation.pod_uid.empty()) invocation.pod_uid = invocation.attachment.container_id;
  if (invocation.pod_ns.empty()) {
    invocation.pod_ns = kNoNamespace;
    invocation.pod_name = invocation.attachment.container_id;
  }
  return std::nullopt;
}

bool IsPath(const json& value, std::size_t longest) {
  if (!value.is_string()) return false;
  const auto& text = value.get_ref<const std::string&>();
  return !text.empty() && text.size() <= longest && text[0] == '/' && text.find('\0') == std::string::npos;
}

std::optional<Error> ReadSettings(const json& config, Settings& settings) {
  settings.agent_socket = rpc::kDefaultAgentSocket;
  settings.spool_dir = rpc::kDefaultSpoolDir;
  if (const auto it = config.find("agentSocket"); it != config.end()) {
    if (!IsPath(*it, kLongestSocket))
      return Error{Code::kInvalidConfig, "agentSocket must be an absolute path of at most 107 bytes", Show(*it)};
    settings.agent_socket = it->get<std::string>();
  }
  if (const auto it = config.find("spoolDir"); it != config.end()) {
    if (!IsPath(*it, 3000)) return Error{Code::kInvalidConfig, "spoolDir must be an absolute path", Show(*it)};
    settings.spool_dir = it->get<std::string>();
  }
  if (const auto it = config.find("timeoutMs"); it != config.end()) {
    const bool fits = it->is_number_integer() && *it >= 1 && *it <= kLongestTimeoutMs;
    if (!fits) return Error{Code::kInvalidConfig, "timeoutMs must be a whole number from 1 to 60000", Show(*it)};
    settings.timeout = std::chrono::milliseconds(it->get<std::int64_t>());
  }
  if (const auto it = config.find("required"); it != config.end()) {
    if (!it->is_boolean()) return Error{Code::kInvalidConfig, "required must be true or false", Show(*it)};
    settings.required = it->get<bool>();
  }
  return std::nullopt;
}

// "10.1.0.2/24" -> "10.1.0.2"; nothing for what is no address.
std::optional<std::string> AddressOf(const std::string& cidr) {
  const std::string address = cidr.substr(0, cidr.find('/'));
  in6_addr scratch{};
  const bool valid = address.find('\0') == std::string::npos &&
                     (::inet_pton(AF_INET, address.c_str(), &scratch) == 1 || ::inet_pton(AF_INET6, address.c_str(), &scratch) == 1);
  return valid ? std::optional(address) : std::nullopt;
}

// Only the interfaces inside the container have a sandbox; an address may name its interface by index, or none.
std::optional<Error> ReadAddresses(const json& result, std::vector<std::string>& out) {
  const json empty = json::array();
  const auto list_of = [&](const char* key) -> const json& {
    const auto it = result.find(key);
    return it == result.end() || it->is_null() ? empty : *it;
  };
  const json& interfaces = list_of("interfaces");
  const json& ips = list_of("ips");
  if (!interfaces.is_array() || !ips.is_array()) return Error{Code::kInvalidConfig, "prevResult: interfaces and ips must be lists", ""};
  for (const json& ip : ips) {
    const auto address = ip.is_object() ? ip.find("address") : ip.end();
    if (!ip.is_object() || address == ip.end() || !address->is_string()) {
      return Error{Code::kInvalidConfig, "prevResult: an entry of ips has no address", Show(ip)};
    }
    auto text = AddressOf(address->get<std::string>());
    if (!text) return Error{Code::kInvalidConfig, "prevResult: not an address", Show(*address)};
    if (const auto index = ip.find("interface"); index != ip.end() && !index->is_null()) {
      const bool fits = index->is_number_integer() && *index >= 0 && *index < interfaces.size();
      if (!fits) return Error{Code::kInvalidConfig, "prevResult: an address names an interface that is not listed", Show(ip)};
      const json& interface = interfaces[index->get<std::size_t>()];
      const auto sandbox = interface.is_object() ? interface.find("sandbox") : interface.end();
      if (!interface.is_object() || sandbox == interface.end() || *sandbox == "") continue;
    }
    out.push_back(std::move(*text));
  }
  return std::nullopt;
}

std::optional<Error> ReadPreviousResult(const json& config, std::string_view text, Invocation& invocation) {
  const auto it = config.find("prevResult");
  if (it == config.end() || it->is_null()) {
    return Error{Code::kInvalidConfig,
                 "prevResult is missing: vsocket-cni is chained and must come after the plugin that makes the interface", ""};
  }
  if (!it->is_object()) return Error{Code::kInvalidConfig, "prevResult must be an object", ""};
  invocation.previous_result = FindMember(text, "prevResult");
  // The parser lets a byte order mark pass, which the text of a JSON exchange must not have (RFC 8259, section 8.1).
  if (invocation.previous_result.empty()) return Error{Code::kUndecodable, "the configuration on stdin begins with a byte order mark", ""};
  return ReadAddresses(*it, invocation.ips);
}

std::optional<Error> ReadAttachments(const json& config, std::vector<Attachment>& out) {
  const auto list = config.find(kAttachmentsKey);
  // Without the list nothing can be told to be garbage; to take it for an empty one would unwire every pod.
  if (list == config.end() || !list->is_array()) return Error{Code::kInvalidConfig, std::string(kAttachmentsKey) + " must be a list", ""};
  for (const json& entry : *list) {
    const bool fits = entry.is_object() && entry.contains("containerID") && entry["containerID"].is_string() && entry.contains("ifname") &&
                      entry["ifname"].is_string();
    if (!fits) return Error{Code::kInvalidConfig, std::string(kAttachmentsKey) + ": an entry lacks containerID or ifname", Show(entry)};
    out.push_back({entry["containerID"].get<std::string>(), entry["ifname"].get<std::string>()});
  }
  return std::nullopt;
}

std::optional<Error> ReadVersion(const json& config, Invocation& invocation) {
  const auto it = config.find("cniVersion");
  if (it == config.end() || !it->is_string()) {
    if (invocation.command == Command::kVersion) return std::nullopt;
    return Error{Code::kInvalidConfig, "cniVersion is missing or not a string", ""};
  }
  const auto& version = it->get_ref<const std::string&>();
  invocation.cni_version = version;
  if (invocation.command == Command::kVersion) return std::nullopt;
  if (std::find(std::begin(kSupportedVersions), std::end(kSupportedVersions), version) == std::end(kSupportedVersions)) {
    return Error{Code::kIncompatibleVersion, "cniVersion " + version + " is not supported", "supported: 0.4.0, 1.0.0, 1.1.0"};
  }
  const bool is_new = invocation.command == Command::kStatus || invocation.command == Command::kGc;
  if (is_new && version != kSpecVersion)
    return Error{Code::kIncompatibleVersion, "STATUS and GC came with CNI 1.1.0", "cniVersion is " + version};
  return std::nullopt;
}

}  // namespace

Result<Invocation, Error> ParseInvocation(const Environment& environment, std::string_view config) {
  if (environment.command.empty()) return Fail(Code::kInvalidEnvironment, "missing in the environment: CNI_COMMAND");
  const auto command = CommandOf(environment.command);
  if (!command) return Fail(Code::kInvalidEnvironment, "unknown CNI_COMMAND", environment.command);
  if (auto error = CheckEnvironment(*command, environment)) return Failure<Error>(std::move(*error));

  Invocation invocation;
  invocation.command = *command;
  invocation.cni_version = kSpecVersion;
  if (config.size() > kLargestConfig) return Fail(Code::kUndecodable, "the configuration on stdin is larger than 4 MiB");
  // Runtimes ask for the versions with a configuration or without.
  const bool blank = config.find_first_not_of(" \t\r\n") == std::string_view::npos;
  if (blank && *command == Command::kVersion) return invocation;

  json parsed;
  try {
    parsed = json::parse(config);
  } catch (const json::exception& exception) {
    return Fail(Code::kUndecodable, "the configuration on stdin is not JSON", exception.what());
  }
  if (!parsed.is_object()) return Fail(Code::kUndecodable, "the configuration on stdin is not a JSON object");
  if (auto error = ReadVersion(parsed, invocation)) return Failure<Error>(std::move(*error));
  if (*command == Command::kVersion) return invocation;
  if (auto error = ReadSettings(parsed, invocation.settings)) return Failure<Error>(std::move(*error));

  if (HasAttachment(*command)) invocation.attachment = {environment.container_id, environment.ifname};
  if (WiresPod(*command)) {
    invocation.netns = environment.netns;
    if (auto error = ReadIdentity(environment.args, invocation)) return Failure<Error>(std::move(*error));
    if (auto error = ReadPreviousResult(parsed, config, invocation)) return Failure<Error>(std::move(*error));
  }
  if (*command == Command::kGc) {
    if (auto error = ReadAttachments(parsed, invocation.keep)) return Failure<Error>(std::move(*error));
  }
  return invocation;
}

std::string RenderError(const std::string& cni_version, const Error& error) {
  nlohmann::ordered_json out{{"cniVersion", cni_version}, {"code", static_cast<unsigned>(error.code)}, {"msg", error.message}};
  if (!error.details.empty()) out["details"] = error.details;
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string RenderVersions(const std::string& cni_version) {
  return nlohmann::ordered_json{{"cniVersion", cni_version}, {"supportedVersions", kSupportedVersions}}.dump();
}

}  // namespace vsocket::cni
