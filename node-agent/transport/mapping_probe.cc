// Who still maps a region's memory (model/mapping_probe.h).
//
// The kernel counts the mappings of a file that are shared and may become writable; F_ADD_SEALS with F_SEAL_WRITE fails with EBUSY while
// there is one, and once it is set no such mapping can be made (fcntl(2), memfd_create(2)). F_SEAL_FUTURE_WRITE would not do: it leaves
// the mappings that exist.
#include "node-agent/model/mapping_probe.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/unique_fd.h"

namespace vsocket::transport {
namespace {

using model::MappingHolder;
using model::SealOutcome;

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

File OpenProc(std::int32_t pid, const char* name) {
  return {std::fopen(("/proc/" + std::to_string(pid) + "/" + name).c_str(), "re"), &std::fclose};
}

// How /proc/PID/maps names the memory: "dev inode", and the name that Region::Create gave. All three, because the numbers of memfds wrap
// at 2^32 and another program's may have the same one.
struct MapsName {
  std::string dev;
  std::string inode;
};

std::optional<MapsName> NameOf(int memfd) {
  struct stat status {};
  if (::fstat(memfd, &status) != 0) return std::nullopt;
  char dev[32];
  std::snprintf(dev, sizeof dev, "%02x:%02x", major(status.st_dev), minor(status.st_dev));
  return MapsName{dev, std::to_string(status.st_ino)};
}

// proc_pid_maps(5): "address perms offset dev inode pathname". The pathname is the last, so a hostile one cannot shift the others; a
// newline in it is escaped.
bool Names(const char* line, const MapsName& name) {
  char perms[5];
  char dev[32];
  char inode[32];
  int path_at = 0;
  if (std::sscanf(line, "%*s %4s %*s %31s %31s %n", perms, dev, inode, &path_at) != 3 || path_at == 0) return false;
  return perms[3] == 's' && name.dev == dev && name.inode == inode && std::strncmp(line + path_at, "/memfd:vsocket-region", 21) == 0;
}

bool Maps(std::int32_t pid, const MapsName& name) {
  const File maps = OpenProc(pid, "maps");
  if (!maps) return false;
  char* line = nullptr;
  std::size_t room = 0;
  bool found = false;
  while (!found && ::getline(&line, &room, maps.get()) >= 0) found = Names(line, name);
  std::free(line);
  return found;
}

std::string ProgramOf(std::int32_t pid) {
  char text[64] = "";
  if (const File comm = OpenProc(pid, "comm"); !comm || std::fgets(text, sizeof text, comm.get()) == nullptr) return "?";
  std::string program(text, std::strcspn(text, "\n"));
  // Goes into logs: nothing that could move a terminal's cursor.
  std::replace_if(
      program.begin(), program.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return program;
}

class ProcMappings final : public model::MappingProbe {
 public:
  SealOutcome Seal(int memfd) override {
    if (::fcntl(memfd, F_ADD_SEALS, F_SEAL_WRITE) == 0) return SealOutcome::kSealed;
    if (errno == EBUSY) return SealOutcome::kInUse;
    const int seals = ::fcntl(memfd, F_GET_SEALS);
    return seals >= 0 && (seals & F_SEAL_WRITE) != 0 ? SealOutcome::kSealed : SealOutcome::kBlocked;
  }

  std::vector<MappingHolder> Holders(int memfd) override {
    std::vector<MappingHolder> holders;
    const auto name = NameOf(memfd);
    const std::unique_ptr<DIR, int (*)(DIR*)> proc(::opendir("/proc"), &::closedir);
    if (!name || !proc) return holders;
    while (const dirent* entry = ::readdir(proc.get())) {
      const std::string_view text(entry->d_name);
      std::int32_t pid = 0;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), pid);
      if (error != std::errc() || end != text.data() + text.size() || pid == ::getpid() || !Maps(pid, *name)) continue;
      holders.push_back({pid, ProgramOf(pid)});
    }
    return holders;
  }

  bool Kill(const MappingHolder& holder, int memfd) override {
    if (holder.pid <= 1 || holder.pid == ::getpid()) return false;
    // First the handle, then the look: a pid that was reused in between is seen, or the handle is of the one that has gone.
    const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, holder.pid, 0)));
    const auto name = NameOf(memfd);
    if (!process.Valid() || !name || !Maps(holder.pid, *name)) return false;
    return ::syscall(SYS_pidfd_send_signal, process.Get(), SIGKILL, nullptr, 0) == 0;
  }
};

}  // namespace
}  // namespace vsocket::transport

std::shared_ptr<vsocket::model::MappingProbe> vsocket::model::MakeMappingProbe() {
  return std::make_shared<vsocket::transport::ProcMappings>();
}
