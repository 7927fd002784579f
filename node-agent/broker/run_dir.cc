#include "node-agent/broker/run_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

namespace vsocket::broker {
namespace {

namespace fs = std::filesystem;

constexpr char kSocketName[] = "agent.sock";
constexpr char kShimName[] = "libvsocket.so";
constexpr int kBacklog = 512;

std::string Why(const char* what, const std::string& path) {
  return std::string("cannot ") + what + " " + path + ": " + std::strerror(errno);
}

bool MakeDir(const std::string& path, mode_t mode) {
  std::error_code error;
  fs::create_directories(path, error);
  // The umask must not decide whether pods can enter.
  return !error && ::chmod(path.c_str(), mode) == 0;
}

}  // namespace

Result<RunDir, std::string> RunDir::Open(std::string path, std::string shim) {
  if (!MakeDir(path, 0755) || !MakeDir(path + "/pods", 0755)) return Failure(Why("make the run directory", path));
  const std::string lock_path = path + "/agent.lock";
  UniqueFd lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock.Valid()) return Failure(Why("open", lock_path));
  if (::flock(lock.Get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return Failure("another vsocket-agent is running on " + path + " (it holds " + lock_path + ")");
    return Failure(Why("lock", lock_path));
  }
  return RunDir(std::move(path), std::move(shim), std::move(lock));
}

std::string RunDir::PutShim(const std::string& dir) const {
  if (shim_.empty()) return {};
  const std::string target = dir + "/" + kShimName;
  const std::string temporary = dir + "/." + kShimName;
  std::error_code error;
  // Renamed into place: a program that starts meanwhile loads the old one or the new one. A link when the file system allows, so that a
  // hundred pods share its pages.
  fs::remove(temporary, error);
  fs::create_hard_link(shim_, temporary, error);
  if (error) {
    error.clear();
    fs::copy_file(shim_, temporary, fs::copy_options::overwrite_existing, error);
    if (!error) ::chmod(temporary.c_str(), 0755);
  }
  if (!error) fs::rename(temporary, target, error);
  if (!error) return {};
  fs::remove(temporary, error);
  return "no shim for the pod: " + shim_ + " cannot be linked or copied to " + dir;
}

Result<RunDir::PodSocket, std::string> RunDir::MakePod(const std::string& uid) {
  const std::string dir = PodPath(uid);
  const std::string path = dir + "/" + kSocketName;
  if (!MakeDir(dir, 0755)) return Failure(Why("make", dir));
  // Bound by way of the directory's descriptor: sun_path has 108 bytes, which a run directory and a pod's uid can exceed (unix(7)).
  const UniqueFd folder(::open(dir.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!folder.Valid()) return Failure(Why("open", dir));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", folder.Get(), kSocketName);

  PodSocket made;
  made.listener = UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!made.listener.Valid()) return Failure(Why("make a socket for", path));
  ::unlink(path.c_str());  // stale: we hold the lock
  if (::bind(made.listener.Get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return Failure(Why("bind", path));
  if (::chmod(path.c_str(), 0666) != 0) return Failure(Why("chmod", path));
  if (::listen(made.listener.Get(), kBacklog) != 0) return Failure(Why("listen on", path));
  made.warning = PutShim(dir);
  return made;
}

void RunDir::RemovePod(const std::string& uid) {
  std::error_code error;
  fs::remove_all(PodPath(uid), error);
}

std::vector<std::string> RunDir::PodsThere() const {
  std::vector<std::string> uids;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(path_ + "/pods", error)) uids.push_back(entry.path().filename().string());
  return uids;
}

}  // namespace vsocket::broker
