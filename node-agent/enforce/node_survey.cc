// What can be seen on a node of who wires its pods and who filters their packets.
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <system_error>
#include <utility>
#include <vector>

#include "node-agent/enforce/enforcement_choice.h"
#include "node-agent/enforce/run_program.h"

namespace vsocket::enforce {
namespace {

namespace fs = std::filesystem;

constexpr std::uintmax_t kLargestConfig = 1U << 20;
constexpr std::chrono::milliseconds kListingTime{3000};

std::string ReadFile(const fs::path& path) {
  std::error_code error;
  if (fs::file_size(path, error) > kLargestConfig || error) return "";
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

// libcni's choice, and so containerd's and CRI-O's: the first file by name that can be understood.
void FindConflist(const std::string& directory, Surroundings& seen) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    const std::string extension = entry.path().extension();
    if (extension == ".conflist" || extension == ".conf" || extension == ".json") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) {
    auto types = PluginTypes(ReadFile(file));
    if (types.empty()) continue;
    seen.conflist = file;
    seen.plugin_types = std::move(types);
    return;
  }
}

void FindProcesses(const std::string& proc, Surroundings& seen) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(proc, error)) {
    const std::string name = entry.path().filename();
    if (!std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isdigit(c) != 0; })) continue;
    std::ifstream stream(entry.path() / "comm");
    std::string comm;
    if (std::getline(stream, comm)) seen.processes.insert(comm);
  }
  // A kernel thread is seen from the host's pid namespace only.
  seen.processes_seen = seen.processes.contains("kthreadd");
}

}  // namespace

std::vector<std::string> PluginTypes(std::string_view json) {
  const auto config = nlohmann::json::parse(json, nullptr, false);
  if (!config.is_object()) return {};
  std::vector<std::string> types;
  const auto add = [&](const nlohmann::json& plugin) {
    if (plugin.is_object() && plugin.contains("type") && plugin["type"].is_string()) types.push_back(plugin["type"].get<std::string>());
  };
  if (config.contains("plugins") && config["plugins"].is_array()) {
    for (const auto& plugin : config["plugins"]) add(plugin);
  } else {
    add(config);
  }
  return types;
}

std::set<std::string> ChainNames(std::string_view listing) {
  std::set<std::string> names;
  std::istringstream lines{std::string(listing)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string first, second, third;
    words >> first >> second >> third;
    if (first == "chain" || first == "-N") names.insert(second);  // nft, iptables
    if (first == "table") names.insert("table " + third);         // nft: table FAMILY NAME {
  }
  return names;
}

Surroundings Survey(const SurveyPlaces& places) {
  Surroundings seen;
  FindConflist(places.cni_conf_dir, seen);
  FindProcesses(places.proc, seen);
  for (const auto& argv :
       {std::vector<std::string>{places.nft, "list", "chains"}, std::vector<std::string>{"/usr/sbin/iptables-legacy", "-w", "1", "-S"}}) {
    if (::access(argv.front().c_str(), X_OK) != 0) continue;
    const ProgramResult result = RunProgram(argv, "", kListingTime);
    if (result.exit_status == 0) seen.chains.merge(ChainNames(result.output));
  }
  return seen;
}

}  // namespace vsocket::enforce
