#include "node-agent/kube/dir_watch.h"

#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

namespace vsocket::kube {
namespace {

// IN_CREATE matters for links only: a file that is being written is complete at IN_CLOSE_WRITE.
constexpr std::uint32_t kDirectoryEvents =
    IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CREATE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
constexpr std::uint32_t kAncestorEvents = IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;

// Absolute and without "." or a slash at the end, so that each step of it has a name.
std::string Normal(const std::string& directory) {
  std::error_code error;
  std::string path = std::filesystem::absolute(directory, error).lexically_normal().string();
  if (error || path.empty()) path = directory;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

// A created name that is complete as it appears: a symlink, or another name of an existing file.
bool IsLink(const std::string& path) {
  struct stat info;
  return ::lstat(path.c_str(), &info) == 0 && (S_ISLNK(info.st_mode) || (S_ISREG(info.st_mode) && info.st_nlink > 1));
}

}  // namespace

Result<DirWatch, std::string> DirWatch::Make(std::string directory) {
  UniqueFd fd(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!fd.Valid()) return Failure<std::string>(std::string("inotify_init1: ") + std::strerror(errno));
  DirWatch watch(Normal(directory), std::move(fd));
  watch.Arm();
  if (watch.directory_watch_ < 0 && watch.ancestor_watches_.empty()) {
    return Failure<std::string>("neither " + directory + " nor a directory above it can be watched: " + std::strerror(errno));
  }
  return watch;
}

DirWatch::DirWatch(std::string directory, UniqueFd fd) : directory_(std::move(directory)), fd_(std::move(fd)) {}

void DirWatch::Arm() {
  // From the root down, and the directory last: whatever appears after its parent's watch is in place is told, so no step can be missed.
  std::map<int, std::string> ancestors;
  for (std::size_t slash = 0; directory_.size() > 1 && slash != std::string::npos;) {
    const std::size_t next = directory_.find('/', slash + 1);
    const std::string above = slash == 0 ? "/" : directory_.substr(0, slash);
    const int watch = ::inotify_add_watch(fd_.Get(), above.c_str(), kAncestorEvents);
    if (watch >= 0) ancestors[watch] = directory_.substr(slash + 1, next - slash - 1);
    if (watch < 0 && errno == ENOENT) break;  // nothing below it either
    slash = next;
  }
  for (const auto& [watch, name] : ancestor_watches_) {
    if (!ancestors.contains(watch)) ::inotify_rm_watch(fd_.Get(), watch);
  }
  ancestor_watches_ = std::move(ancestors);

  // The same inode keeps its watch descriptor; a new one gets another.
  const int directory = ::inotify_add_watch(fd_.Get(), directory_.c_str(), kDirectoryEvents);
  if (directory_watch_ >= 0 && directory_watch_ != directory) ::inotify_rm_watch(fd_.Get(), directory_watch_);
  directory_watch_ = directory;
}

void DirWatch::Note(std::uint32_t mask, const std::string& name, int watch, Changes& changes, bool& rearm) {
  if ((mask & IN_Q_OVERFLOW) != 0) {
    changes.everything = rearm = true;
    return;
  }
  if (const auto above = ancestor_watches_.find(watch); above != ancestor_watches_.end()) {
    const bool gone = (mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED | IN_UNMOUNT)) != 0;
    rearm = rearm || gone || name == above->second;
    if ((mask & IN_IGNORED) != 0) ancestor_watches_.erase(above);
    return;
  }
  if (watch != directory_watch_) return;  // left over from a watch that is gone
  if ((mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED | IN_UNMOUNT)) != 0) {
    changes.everything = rearm = true;
    return;
  }
  if (name.empty()) return;
  if (name.rfind("..", 0) == 0) {
    // The kubelet's atomic writer swaps ..data, through which every visible name leads.
    if ((mask & (IN_MOVED_TO | IN_CREATE)) != 0) changes.everything = true;
    return;
  }
  if ((mask & IN_CREATE) != 0 && !IsLink(directory_ + "/" + name)) return;
  changes.names.insert(name);
}

void DirWatch::Drain(Changes& changes) {
  alignas(inotify_event) char buffer[16384];
  bool rearm = false;
  while (true) {
    const ssize_t got = ::read(fd_.Get(), buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    for (ssize_t at = 0; at < got;) {
      inotify_event event;
      std::memcpy(&event, buffer + at, sizeof(event));
      const std::string name = event.len > 0 ? std::string(buffer + at + sizeof(event)) : std::string();
      Note(event.mask, name, event.wd, changes, rearm);
      if ((event.mask & IN_IGNORED) != 0 && event.wd == directory_watch_) directory_watch_ = -1;
      at += static_cast<ssize_t>(sizeof(event) + event.len);
    }
  }
  if (!rearm) return;
  const int before = directory_watch_;
  Arm();
  if (directory_watch_ != before) changes.everything = true;
}

}  // namespace vsocket::kube
