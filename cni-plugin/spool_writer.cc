#include "cni-plugin/spool_writer.h"

#include <fcntl.h>
#include <google/protobuf/util/json_util.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vsocket/v1/agent.pb.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "base/unique_fd.h"
#include "cni-plugin/pod_message.h"
#include "proto/spool.h"
#include "proto/version.h"

namespace vsocket::cni {
namespace {

namespace fs = std::filesystem;

constexpr char kTemporarySuffix[] = "/.writing-XXXXXX";  // mkstemp(3); a name the reader passes over

v1::SpoolRecord NewRecord() {
  v1::SpoolRecord record;
  record.set_protocol_version(rpc::kProtocolVersion);
  std::ifstream boot("/proc/sys/kernel/random/boot_id");
  std::string boot_id;
  std::getline(boot, boot_id);
  record.set_boot_id(boot_id);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  record.set_written_unix_nanos(static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count()));
  return record;
}

// Names in a record were checked when the call was parsed and hold no control characters, so that the text is always representable.
std::string ToText(const v1::SpoolRecord& record) {
  std::string text;
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  return google::protobuf::util::MessageToJsonString(record, &text, options).ok() ? text : std::string();
}

Failure<std::string> FailErrno(const std::string& what) {
  return Failure<std::string>(what + ": " + std::strerror(errno));
}

bool WriteAll(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t wrote = ::write(fd, text.data(), text.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return false;
    text.remove_prefix(static_cast<std::size_t>(wrote));
  }
  return true;
}

}  // namespace

SpoolDirectory::SpoolDirectory(std::string dir) : dir_(std::move(dir)) {}

std::string SpoolDirectory::PathOf(const Attachment& attachment) const {
  return dir_ + "/" + attachment.container_id + rpc::kSpoolSeparator + attachment.ifname + rpc::kSpoolSuffix;
}

Result<Written, std::string> SpoolDirectory::Add(const Pod& pod) {
  v1::SpoolRecord record = NewRecord();
  ToMessage(pod, record.mutable_add());
  return Put(pod.attachment, ToText(record));
}

Result<Written, std::string> SpoolDirectory::Remove(const Attachment& attachment) {
  v1::SpoolRecord record = NewRecord();
  ToMessage(attachment, record.mutable_remove());
  return Put(attachment, ToText(record));
}

void SpoolDirectory::Forget(const Attachment& attachment) {
  ::unlink(PathOf(attachment).c_str());
}

Result<Written, std::string> SpoolDirectory::Put(const Attachment& attachment, const std::string& text) {
  if (text.empty()) return Failure<std::string>("the record cannot be written as JSON");
  if (!fs::exists(dir_)) {
    std::error_code error;
    fs::create_directories(fs::path(dir_).parent_path(), error);
    if (::mkdir(dir_.c_str(), 0700) != 0 && errno != EEXIST) return FailErrno(dir_);
  }
  std::string temporary = dir_ + kTemporarySuffix;
  const UniqueFd fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd.Valid()) return FailErrno(dir_);
  // Flushed before it gets its name: after a power cut the file is whole or absent. (The boot it belongs to is over then, and the
  // reader drops it; but a file system full of empty records would look like a fault.)
  if (!WriteAll(fd.Get(), text) || ::fdatasync(fd.Get()) != 0 || ::rename(temporary.c_str(), PathOf(attachment).c_str()) != 0) {
    auto failure = FailErrno(PathOf(attachment));
    ::unlink(temporary.c_str());
    return failure;
  }
  return Written{};
}

}  // namespace vsocket::cni
