// The run directory: what pods see of the agent.
//
//   RUN_DIR/agent.lock             held by flock(2) while an agent lives: a second one on the same directory is refused
//   RUN_DIR/pods/UID/agent.sock    the pod's socket (0666 in a directory that only this pod is shown)
//   RUN_DIR/pods/UID/libvsocket.so the shim
//
// Thread safety: none; callers serialise.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace vsocket::broker {

class RunDir {
 public:
  // Makes the directories and takes the lock. `shim` may be empty: then no shim is offered.
  static Result<RunDir, std::string> Open(std::string path, std::string shim);

  [[nodiscard]] std::string PodPath(const std::string& uid) const { return path_ + "/pods/" + uid; }
  [[nodiscard]] const std::string& Path() const { return path_; }

  struct PodSocket {
    UniqueFd listener;
    std::string warning;  // the shim could not be put there; empty: fine
  };
  // Makes the pod's directory with the shim and a fresh listening socket; a stale socket file is replaced. The lock says that nobody
  // else listens on it.
  Result<PodSocket, std::string> MakePod(const std::string& uid);
  void RemovePod(const std::string& uid);
  // Directories of pods that are there, by uid.
  [[nodiscard]] std::vector<std::string> PodsThere() const;

 private:
  RunDir(std::string path, std::string shim, UniqueFd lock) : path_(std::move(path)), shim_(std::move(shim)), lock_(std::move(lock)) {}
  [[nodiscard]] std::string PutShim(const std::string& dir) const;

  std::string path_, shim_;
  UniqueFd lock_;
};

}  // namespace vsocket::broker
