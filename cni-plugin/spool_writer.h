// Leaves for an agent that is down what it must know when it starts (proto/spool.h).
#pragma once

#include <string>

#include "base/result.h"
#include "cni-plugin/agent.h"

namespace vsocket::cni {

struct Written {};

// Thread safety: none within a process; any number of plugins may use one directory.
class Spool {
 public:
  virtual ~Spool() = default;
  // Each replaces an earlier record of the attachment, atomically. The error is in words.
  virtual Result<Written, std::string> Add(const Pod& pod) = 0;
  virtual Result<Written, std::string> Remove(const Attachment& attachment) = 0;
  // Takes a record back, if there is one.
  virtual void Forget(const Attachment& attachment) = 0;
};

// The directory is made, with mode 0700, when there is something to write.
class SpoolDirectory final : public Spool {
 public:
  explicit SpoolDirectory(std::string dir);
  Result<Written, std::string> Add(const Pod& pod) override;
  Result<Written, std::string> Remove(const Attachment& attachment) override;
  void Forget(const Attachment& attachment) override;

 private:
  [[nodiscard]] std::string PathOf(const Attachment& attachment) const;
  Result<Written, std::string> Put(const Attachment& attachment, const std::string& text);

  const std::string dir_;
};

}  // namespace vsocket::cni
