#include "node-agent/kube/directory_state.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>

#include "base/unique_fd.h"
#include "node-agent/model/selector.h"

namespace vsocket::kube {
namespace {

constexpr std::size_t kShownErrors = 50;  // a file; the first ones are the ones to repair first

bool EndsWith(const std::string& text, const char* suffix) {
  const std::size_t size = std::strlen(suffix);
  return text.size() > size && text.compare(text.size() - size, size, suffix) == 0;
}

// The file's text, at most one byte more than is accepted. An empty `error` with no text: there is no file of that name. (A symlink to
// nothing is one that cannot be opened: what it leads to may come back.)
std::optional<std::string> ReadFile(const std::string& path, std::string& error) {
  error.clear();
  // Without O_NONBLOCK, opening a FIFO would wait for a writer.
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info;
  if (!fd.Valid() || ::fstat(fd.Get(), &info) != 0) {
    const int why = errno;
    if (why != ENOENT || ::lstat(path.c_str(), &info) == 0) error = std::string("cannot be opened: ") + std::strerror(why);
    return std::nullopt;
  }
  if (!S_ISREG(info.st_mode)) {
    error = "is not a regular file";
    return std::nullopt;
  }
  const std::size_t limit = YamlLimits().bytes + 1;
  std::string text;
  char chunk[65536];
  while (text.size() < limit) {
    const ssize_t got = ::read(fd.Get(), chunk, std::min(sizeof(chunk), limit - text.size()));
    if (got == 0) break;
    if (got < 0) {
      if (errno == EINTR) continue;
      error = std::string("cannot be read: ") + std::strerror(errno);
      return std::nullopt;
    }
    text.append(chunk, static_cast<std::size_t>(got));
  }
  return text;
}

std::string Where(const std::string& path, int line) {
  return line > 0 ? path + ":" + std::to_string(line) : path;
}

// Takes the objects of one kind from every file, the first of each name only.
class Collector {
 public:
  explicit Collector(std::vector<model::SourceProblem>& problems) : problems_(problems) {}

  // Out: T, or what a T can be put into.
  template <typename T, typename Name, typename Out>
  void Add(const char* kind, const std::string& path, const std::vector<Located<T>>& objects, Name&& name_of, std::vector<Out>& out) {
    for (const Located<T>& located : objects) {
      const std::string name = std::string(kind) + " " + name_of(located.object);
      const std::string where = Where(path, located.line);
      const auto [first, added] = first_.try_emplace(name, where);
      if (added) {
        out.push_back(located.object);
      } else {
        problems_.push_back({where, name + " is already defined in " + first->second + ", which stays in force"});
      }
    }
  }

 private:
  std::vector<model::SourceProblem>& problems_;
  std::map<std::string, std::string> first_;  // "kind ns/name" -> where
};

template <typename T>
std::string NamespacedName(const T& object) {
  return object.ns + "/" + object.name;
}

}  // namespace

bool IsManifestName(const std::string& name) {
  return !name.empty() && name[0] != '.' && (EndsWith(name, ".yaml") || EndsWith(name, ".yml") || EndsWith(name, ".json"));
}

DirectoryState::DirectoryState(std::string directory, InfoLog info) : directory_(std::move(directory)), info_(std::move(info)) {}

void DirectoryState::NoteUnreadable(const char* what) {
  directory_problems_.push_back({directory_, std::string("cannot be ") + what + ": " + std::strerror(errno) +
                                                 (complete_ ? "; the last state stays in force" : "; nothing is allowed until it can be")});
}

void DirectoryState::ReadAll() {
  directory_problems_.clear();
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(directory_.c_str()), ::closedir);
  if (!dir) {
    // What was in force stays so: a directory that is about to be replaced must not open everything meanwhile.
    NoteUnreadable("opened");
    return;
  }
  std::set<std::string> present;
  while (true) {
    errno = 0;
    const dirent* entry = ::readdir(dir.get());
    if (entry == nullptr) {
      if (errno != 0) {
        NoteUnreadable("read");
        return;
      }
      break;
    }
    if (IsManifestName(entry->d_name)) present.insert(entry->d_name);
  }
  listed_ = true;
  std::erase_if(files_, [&](const auto& file) { return !present.contains(file.first); });
  for (const std::string& name : present) ReadOne(name);
}

void DirectoryState::ReadOne(const std::string& name) {
  if (!IsManifestName(name)) return;
  const std::string path = PathOf(name);
  std::string error;
  const auto text = ReadFile(path, error);
  if (!text && error.empty()) {
    // Gone with its directory is not removed from it: then what it said stays in force.
    struct stat info;
    if (::stat(directory_.c_str(), &info) == 0) files_.erase(name);
    return;
  }
  File& file = files_[name];
  file.problems.clear();
  if (!text) {
    file.problems.push_back({path, error});
    file.unclear = !file.was_good;
    return;
  }
  Manifest manifest = ReadManifest(*text);
  for (const YamlError& note : manifest.notes) Info(Where(path, note.line) + ": " + note.what);
  for (std::size_t i = 0; i < manifest.errors.size() && i < kShownErrors; ++i) {
    file.problems.push_back({Where(path, manifest.errors[i].line), manifest.errors[i].what});
  }
  if (manifest.errors.size() > kShownErrors) {
    file.problems.push_back({path, "and " + std::to_string(manifest.errors.size() - kShownErrors) + " more errors"});
  }
  file.unclear = !file.was_good && manifest.unclear;
  if (manifest.errors.empty()) {
    file.was_good = true;
    file.unclear = false;
    file.in_force = std::move(manifest);
    return;
  }
  if (file.was_good) return;
  for (const auto& replaced : manifest.quarantine) {
    file.problems.push_back(
        {Where(path, replaced.line), "NetworkPolicy " + NamespacedName(replaced.object) +
                                         " was never valid: until it is, the pods it selects may exchange nothing with others"});
  }
  manifest.policies.insert(manifest.policies.end(), manifest.quarantine.begin(), manifest.quarantine.end());
  std::stable_sort(manifest.policies.begin(), manifest.policies.end(), [](const auto& a, const auto& b) { return a.line < b.line; });
  file.in_force = std::move(manifest);
}

DirectoryState::View DirectoryState::Assemble() {
  View view;
  view.problems = directory_problems_;
  Collector collector(view.problems);
  for (const auto& [name, file] : files_) {
    const std::string path = PathOf(name);
    view.problems.insert(view.problems.end(), file.problems.begin(), file.problems.end());
    collector.Add(
        "Namespace", path, file.in_force.namespaces, [](const model::Namespace& ns) { return ns.name; }, view.state.namespaces);
    collector.Add("Pod", path, file.in_force.pods, NamespacedName<model::Pod>, view.state.pods);
    collector.Add(
        "Node", path, file.in_force.nodes, [](const model::Node& node) { return node.name; }, view.state.nodes);
    collector.Add("NetworkPolicy", path, file.in_force.policies, NamespacedName<model::NetworkPolicy>, view.state.policies);
    collector.Add("Service", path, file.in_force.services, NamespacedName<model::Service>, view.state.services);
    collector.Add("EndpointSlice", path, file.in_force.endpoint_slices, NamespacedName<model::EndpointSlice>, view.state.endpoint_slices);
  }
  complete_ = complete_ || (listed_ && std::none_of(files_.begin(), files_.end(), [](const auto& file) { return file.second.unclear; }));
  view.complete = complete_;
  if (view.complete) ReportUnselective(view.state);
  return view;
}

void DirectoryState::ReportUnselective(const model::ClusterState& state) {
  for (const model::NetworkPolicy& policy : state.policies) {
    const std::string name = NamespacedName(policy);
    const bool selects = std::any_of(state.pods.begin(), state.pods.end(), [&](const model::Pod& pod) {
      return pod.ns == policy.ns && !pod.finished && !pod.host_network && model::Matches(policy.pod_selector, pod.labels);
    });
    if (selects) {
      reported_unselective_.erase(name);
    } else if (reported_unselective_.insert(name).second) {
      Info("NetworkPolicy " + name + " selects no pod at present");
    }
  }
}

}  // namespace vsocket::kube
