// inotify(7) over one directory that may be absent, removed, renamed away or replaced by a symlink swap, at any moment.
//
// One watch on the directory itself and one on each existing directory above it, which tells when the next step of the path comes or goes.
// (A symlink in the path is watched where it is, not where it leads.)
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace vsocket::kube {

class DirWatch {
 public:
  // An absolute or relative path; it need not exist. Fails when nothing of the path can be watched.
  static Result<DirWatch, std::string> Make(std::string directory);

  // Readable when there is something to Drain.
  [[nodiscard]] int Fd() const { return fd_.Get(); }

  struct Changes {
    bool everything = false;      // the directory came, went, or was swapped; or events were lost
    std::set<std::string> names;  // files of the directory that were completed, moved or removed
    [[nodiscard]] bool Any() const { return everything || !names.empty(); }
  };
  // Takes every event that is there, without waiting, into `changes`.
  void Drain(Changes& changes);

 private:
  DirWatch(std::string directory, UniqueFd fd);
  // Puts all watches where they belong now. Idempotent.
  void Arm();
  void Note(std::uint32_t mask, const std::string& name, int watch, Changes& changes, bool& rearm);

  std::string directory_;
  UniqueFd fd_;
  int directory_watch_ = -1;
  std::map<int, std::string> ancestor_watches_;  // descriptor -> the name in it that is the next step of the path
};

}  // namespace vsocket::kube
