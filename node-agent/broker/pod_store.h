// Local pods on disk, so that a restarted agent knows them before the CNI speaks again: one JSON file a pod, UID.json, written to a
// temporary name and renamed (rename(2) is atomic: a crash leaves the old or the new file).
//
// Thread safety: none; callers serialise.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "node-agent/model/local_pod.h"

namespace vsocket::broker {

struct Stored {};

class PodStore {
 public:
  explicit PodStore(std::string dir) : dir_(std::move(dir)) {}

  // Makes the directory. Errors are sentences.
  Result<Stored, std::string> Open();
  Result<Stored, std::string> Put(const model::LocalPod& pod);
  void Remove(const std::string& uid);  // nothing happens when there is none

  struct Loaded {
    std::vector<model::LocalPod> pods;
    std::vector<std::string> problems;  // files that could not be understood, with the reason; they are left alone
  };
  [[nodiscard]] Loaded Load() const;

 private:
  std::string dir_;
};

// A uid names a directory and a file: 1 to 64 of [A-Za-z0-9-_.], not "." or "..".
bool IsSafeUid(const std::string& uid);

}  // namespace vsocket::broker
