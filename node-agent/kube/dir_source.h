// Cluster state from a directory of Kubernetes manifests (*.yaml, *.yml, *.json; other names and names with a leading dot are ignored).
//
// Invariants:
// 1. A file with anything wrong in it changes nothing: what the file last said without an error stays in force, and each error is a
//    SourceProblem with file and line.
// 2. A file that has never been good cannot open a hole: every NetworkPolicy document in it that is not valid is replaced by one that
//    isolates the pods it names (or its whole namespace, when not even that can be read), in both directions, allowing nothing. Where it
//    cannot be told what a policy would be (no such directory, a file that cannot be opened, no YAML), there is no first state at all
//    until that is repaired; afterwards such a file adds nothing, and takes nothing away.
// 3. Files are read in the order of their names; of two objects of the same kind, namespace and name the first is in force and the other is
//    a problem.
// 4. A change is published once it is complete (inotify(7): IN_CLOSE_WRITE, IN_MOVED_*, IN_DELETE; a ConfigMap's ..data symlink swap is a
//    move), a few milliseconds after it, so that a burst of changes is one snapshot. The directory may be removed and made again: while it
//    is missing the last state stays in force, with a problem.
//
// Thread safety: the callback and the log run on the constructing thread during Start and afterwards on the source's own thread, never two
// at a time. They must not destroy the source.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "node-agent/kube/snapshot_callback.h"

namespace vsocket::kube {

class DirSource {
 public:
  // Reads the directory once and calls back before it returns; a directory that does not exist (yet) is no state, with a problem.
  // Fails only when the kernel refuses inotify, eventfd or a thread; the error says which.
  static Result<std::unique_ptr<DirSource>, std::string> Start(std::string directory, SnapshotCallback callback, InfoLog info);
  // Ends the thread; no callback runs after it.
  ~DirSource();
  DirSource(const DirSource&) = delete;
  DirSource& operator=(const DirSource&) = delete;

 private:
  class Impl;
  explicit DirSource(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace vsocket::kube
