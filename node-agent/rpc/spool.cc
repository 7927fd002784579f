#include "node-agent/rpc/spool.h"

#include <fcntl.h>
#include <google/protobuf/util/json_util.h>
#include <stdio.h>
#include <sys/stat.h>
#include <vsocket/v1/agent.pb.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <system_error>
#include <utility>

#include "node-agent/rpc/convert.h"
#include "proto/spool.h"
#include "proto/version.h"

namespace vsocket::rpc {
namespace {

namespace fs = std::filesystem;

constexpr std::uintmax_t kLargestRecord = 64 * 1024;

// A record that this agent has taken: a plugin may write a newer one of the same attachment under the old name meanwhile, and that must
// not be deleted as if it had been applied. An agent that dies in between leaves it for the next.
constexpr char kClaimedSuffix[] = ".applying";

struct Record {
  fs::path path;     // as the plugin named it
  fs::path claimed;  // as it is named now
  v1::SpoolRecord message;
};

std::string BootId() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

// Why the file is not a record; nothing when it is, and `*out` is it.
std::optional<std::string> Read(const fs::path& path, v1::SpoolRecord* out) {
  std::error_code error;
  if (!fs::is_regular_file(fs::symlink_status(path, error))) return "is not a regular file";
  const std::uintmax_t size = fs::file_size(path, error);
  if (error) return error.message();
  if (size > kLargestRecord) return "is larger than any record";
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (!file) return "cannot be read";
  const auto parsed = google::protobuf::util::JsonStringToMessage(text, out);
  if (!parsed.ok()) return "is not a record: " + std::string(parsed.message());
  if (out->protocol_version() != kProtocolVersion) {
    return "is of protocol version " + std::to_string(out->protocol_version()) + ", this agent speaks " + std::to_string(kProtocolVersion);
  }
  if (out->operation_case() == v1::SpoolRecord::OPERATION_NOT_SET) return "says neither add nor remove";
  return std::nullopt;
}

// No sandbox outlives a boot or its network namespace. A path that was reused shows another inode.
bool IsStale(const v1::SpoolRecord& record, const std::string& boot_id) {
  if (record.boot_id() != boot_id) return true;
  if (record.operation_case() != v1::SpoolRecord::kAdd) return false;
  struct stat netns {};
  if (::stat(record.add().netns_path().c_str(), &netns) != 0) return true;
  return record.add().netns_inode() != 0 && record.add().netns_inode() != netns.st_ino;
}

void Drop(const Record& record, SpoolReport& report) {
  std::error_code error;
  fs::remove(record.claimed, error);
  if (error) report.problems.push_back(record.claimed.string() + ": cannot be removed: " + error.message());
}

// Gives the record its name back, so that the plugin can still take it back or replace it; a newer one has already replaced it when the
// name is taken.
void Keep(const Record& record, SpoolReport& report) {
  if (::renameat2(AT_FDCWD, record.claimed.c_str(), AT_FDCWD, record.path.c_str(), RENAME_NOREPLACE) == 0) return;
  if (errno == EEXIST) return Drop(record, report);
  report.problems.push_back(record.claimed.string() + ": cannot be renamed back: " + std::strerror(errno));
}

// Takes the file under its own name. Nothing when it is no record for us: another name, or a plugin has just taken it back.
std::optional<Record> Claim(const fs::path& path) {
  Record record{path, path, {}};
  if (path.extension() == kClaimedSuffix) {
    record.path.replace_extension();
    return record;
  }
  if (path.extension() != kSpoolSuffix) return std::nullopt;
  record.claimed += kClaimedSuffix;
  std::error_code error;
  fs::rename(path, record.claimed, error);
  if (error) return std::nullopt;
  return record;
}

// True when the record is done with.
bool Settle(const Record& record, const model::ApiError& error, SpoolReport& report) {
  const bool for_good = error.kind == model::ApiErrorKind::kInvalid || error.kind == model::ApiErrorKind::kNotFound;
  report.problems.push_back(record.path.string() + ": " + error.message + (for_good ? " (dropped)" : " (kept for the next start)"));
  return for_good;
}

bool ApplyAdd(const Record& record, model::NodeApi& api, SpoolReport& report) {
  auto pod = FromProto(record.message.add());
  if (!pod) return Settle(record, pod.Error(), report);
  auto added = api.AddPod(std::move(*pod));
  if (!added) return Settle(record, added.Error(), report);
  report.added++;
  return true;
}

bool ApplyRemove(const Record& record, model::NodeApi& api, SpoolReport& report) {
  const v1::Attachment& attachment = record.message.remove();
  auto removed = api.RemovePod(attachment.container_id(), attachment.ifname());
  if (!removed) return Settle(record, removed.Error(), report);
  report.removed++;
  return true;
}

}  // namespace

SpoolReport ApplySpool(const std::string& dir, model::NodeApi& api) {
  SpoolReport report;
  // The names first: claiming changes the directory that is being read.
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::directory_iterator file(dir, error); !error && file != fs::directory_iterator(); file.increment(error)) {
    files.push_back(file->path());
  }
  if (error && error != std::errc::no_such_file_or_directory) report.problems.push_back(dir + ": " + error.message());

  std::vector<Record> records;
  for (const fs::path& file : files) {
    auto record = Claim(file);
    if (!record) continue;
    if (const auto why = Read(record->claimed, &record->message)) {
      report.problems.push_back(record->path.string() + " " + *why);
      std::error_code renamed;
      fs::rename(record->claimed, record->path.string() + kRejectedSuffix, renamed);
      continue;
    }
    records.push_back(std::move(*record));
  }
  std::sort(records.begin(), records.end(), [](const Record& a, const Record& b) {
    return std::make_pair(a.message.written_unix_nanos(), a.path) < std::make_pair(b.message.written_unix_nanos(), b.path);
  });

  const std::string boot_id = BootId();
  for (const Record& record : records) {
    if (IsStale(record.message, boot_id)) {
      report.stale++;
      Drop(record, report);
      continue;
    }
    const bool is_add = record.message.operation_case() == v1::SpoolRecord::kAdd;
    const bool settled = is_add ? ApplyAdd(record, api, report) : ApplyRemove(record, api, report);
    settled ? Drop(record, report) : Keep(record, report);
  }
  return report;
}

}  // namespace vsocket::rpc
