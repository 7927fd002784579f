#include "node-agent/kube/dir_watch.h"

#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace vsocket::kube {
namespace {

// IN_CREATE matters for links only: a file that is being written is complete at IN_CLOSE_WRITE.
constexpr std::uint32_t kDirectoryEvents =
    IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CREATE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
constexpr std::uint32_t kAncestorEvents = IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;

std::string ParentOf(const std::string& path) {
  const auto slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string WithoutTrailingSlashes(std::string path) {
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
  DirWatch watch(WithoutTrailingSlashes(std::move(directory)), std::move(fd));
  watch.Arm();
  if (watch.directory_watch_ < 0 && watch.ancestor_watch_ < 0) {
    return Failure<std::string>("neither " + watch.directory_ + " nor a directory above it can be watched: " + std::strerror(errno));
  }
  return watch;
}

DirWatch::DirWatch(std::string directory, UniqueFd fd) : directory_(std::move(directory)), fd_(std::move(fd)) {}

void DirWatch::Arm() {
  // The ancestor first: whatever appears after its watch is in place is told, so the directory's own attempt below cannot miss it.
  int ancestor = -1;
  for (std::string path = directory_; ancestor < 0 && path != "/" && path != ".";) {
    path = ParentOf(path);
    ancestor = ::inotify_add_watch(fd_.Get(), path.c_str(), kAncestorEvents | IN_MASK_CREATE);
    if (ancestor >= 0 || errno != EEXIST) continue;
    ancestor = ::inotify_add_watch(fd_.Get(), path.c_str(), kAncestorEvents | IN_MASK_ADD);  // watched already
  }
  if (ancestor_watch_ >= 0 && ancestor_watch_ != ancestor) ::inotify_rm_watch(fd_.Get(), ancestor_watch_);
  ancestor_watch_ = ancestor;

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
  if (watch == ancestor_watch_) {
    // Anything may be a step of our path; looking is cheap and these directories are quiet or few.
    rearm = true;
    if (watch != directory_watch_) return;
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
      if ((event.mask & IN_IGNORED) != 0 && event.wd == ancestor_watch_) ancestor_watch_ = -1;
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
