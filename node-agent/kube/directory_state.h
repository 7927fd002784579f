// What the files of one directory say together. No threads and no waiting: the owner says which files changed.
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "node-agent/kube/dir_source.h"
#include "node-agent/kube/manifest.h"
#include "node-agent/model/cluster.h"

namespace vsocket::kube {

// *.yaml, *.yml, *.json, not hidden.
bool IsManifestName(const std::string& name);

class DirectoryState {
 public:
  explicit DirectoryState(std::string directory, InfoLog info = {});

  // Reads every file of the directory and forgets those that are gone.
  void ReadAll();
  // Reads one file of the directory, or forgets it when it is gone. Names that are no manifest's are ignored.
  void ReadOne(const std::string& name);

  // The objects in force, in file order, and the complete list of problems. `revision` is left 0.
  struct View {
    // False until every file has been understood once, as far as its policies go: before that, what is missing in `state` may be what
    // forbids. From then on true: each file's last good content stays in force.
    bool complete = false;
    model::ClusterState state;
    std::vector<model::SourceProblem> problems;
  };
  // Logs each policy that selects no pod, once until it selects one again.
  View Assemble();

 private:
  struct File {
    Manifest in_force;  // the last good content; or, while there has never been any, what is valid plus quarantine
    bool was_good = false;
    bool unclear = false;  // it may hold policies that nobody has read: it could not be opened, or Manifest::unclear
    std::vector<model::SourceProblem> problems;
  };

  [[nodiscard]] std::string PathOf(const std::string& name) const { return directory_ + "/" + name; }
  void Info(const std::string& line) const {
    if (info_) info_(line);
  }
  void NoteUnreadable(const char* what);  // of the directory; errno says why
  void ReportUnselective(const model::ClusterState& state);

  const std::string directory_;
  const InfoLog info_;
  std::map<std::string, File> files_;  // by name: file order
  std::vector<model::SourceProblem> directory_problems_;
  bool listed_ = false;    // the directory could be read once
  bool complete_ = false;  // see View
  std::set<std::string> reported_unselective_;
};

}  // namespace vsocket::kube
