#include "node-agent/broker/pod_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/unique_fd.h"

namespace vsocket::broker {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kFormat = 1;
constexpr char kSuffix[] = ".json";

json ToJson(const model::LocalPod& pod) {
  json ips = json::array();
  for (const auto& ip : pod.ips) ips.push_back(ip.ToString());
  return {{"format", kFormat},
          {"uid", pod.uid},
          {"namespace", pod.ns},
          {"name", pod.name},
          {"containerID", pod.container_id},
          {"ifname", pod.ifname},
          {"netns", pod.netns_path},
          {"netnsCookie", pod.netns_cookie},
          {"netnsInode", pod.netns_inode},
          {"ips", std::move(ips)}};
}

// Throws json::exception when a member is missing or of another type.
Result<model::LocalPod, std::string> FromJson(const json& value) {
  if (value.at("format").get<int>() != kFormat) return Failure(std::string("an unknown format"));
  model::LocalPod pod;
  pod.uid = value.at("uid").get<std::string>();
  pod.ns = value.at("namespace").get<std::string>();
  pod.name = value.at("name").get<std::string>();
  pod.container_id = value.at("containerID").get<std::string>();
  pod.ifname = value.at("ifname").get<std::string>();
  pod.netns_path = value.at("netns").get<std::string>();
  pod.netns_cookie = value.at("netnsCookie").get<std::uint64_t>();
  pod.netns_inode = value.at("netnsInode").get<std::uint64_t>();
  for (const auto& text : value.at("ips")) {
    const auto ip = model::IpAddress::Parse(text.get<std::string>());
    if (!ip) return Failure("not an address: " + text.get<std::string>());
    pod.ips.push_back(*ip);
  }
  if (!IsSafeUid(pod.uid)) return Failure(std::string("an impossible uid"));
  return pod;
}

bool WriteAll(int fd, const std::string& text) {
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t written = ::write(fd, text.data() + done, text.size() - done);
    if (written < 0 && errno != EINTR) return false;
    if (written > 0) done += static_cast<std::size_t>(written);
  }
  return true;
}

}  // namespace

bool IsSafeUid(const std::string& uid) {
  const auto safe = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
  };
  return !uid.empty() && uid.size() <= 64 && uid != "." && uid != ".." && std::all_of(uid.begin(), uid.end(), safe);
}

Result<Stored, std::string> PodStore::Open() {
  std::error_code error;
  fs::create_directories(dir_, error);
  if (error) return Failure("cannot make the state directory " + dir_ + ": " + error.message());
  if (::access(dir_.c_str(), R_OK | W_OK | X_OK) != 0)
    return Failure("cannot use the state directory " + dir_ + ": " + std::strerror(errno));
  return Stored{};
}

Result<Stored, std::string> PodStore::Put(const model::LocalPod& pod) {
  const std::string path = dir_ + "/" + pod.uid + kSuffix;
  const std::string temporary = dir_ + "/." + pod.uid + ".tmp";
  const auto fail = [&](const char* what) {
    std::string why = std::string("cannot ") + what + " " + temporary + ": " + std::strerror(errno);
    ::unlink(temporary.c_str());
    return Failure(std::move(why));
  };
  {
    const UniqueFd file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!file.Valid()) return fail("make");
    if (!WriteAll(file.Get(), ToJson(pod).dump(2, ' ', false, json::error_handler_t::replace) + "\n")) return fail("write");
    if (::fsync(file.Get()) != 0) return fail("sync");
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) return fail("rename");
  return Stored{};
}

void PodStore::Remove(const std::string& uid) {
  ::unlink((dir_ + "/" + uid + kSuffix).c_str());
}

PodStore::Loaded PodStore::Load() const {
  Loaded loaded;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(dir_, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with('.') || !name.ends_with(kSuffix)) continue;
    std::ifstream file(entry.path());
    const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    try {
      auto pod = FromJson(json::parse(text));
      if (pod && pod->uid + kSuffix != name) pod = Failure(std::string("its name is not its uid"));
      if (pod) {
        loaded.pods.push_back(std::move(pod.Value()));
      } else {
        loaded.problems.push_back(entry.path().string() + ": " + pod.Error());
      }
    } catch (const json::exception& problem) {
      loaded.problems.push_back(entry.path().string() + ": " + problem.what());
    }
  }
  if (error) loaded.problems.push_back(dir_ + ": " + error.message());
  return loaded;
}

}  // namespace vsocket::broker
