// Sees to it that revoked memory is let go of, whatever the two shims do: the words and the destroyed sockets bind an honest end, this
// binds two that are in league.
//
// Memory comes here when no allowed connection is left in it, and the agent's own mapping is gone:
// - *revoked*: the policy took its connections away. When the deadline has passed and it cannot be sealed, somebody still maps it. That is
//   reported once, with the holders, and with `strict` they are killed. An honest program that sleeps, without a call that its shim
//   serves, cannot let go either: the agent cannot tell the two apart, and the report says only what is known.
// - *left*: its connections ended and one of its processes left the agent. The two may go on mapping it, which is their right while the
//   policy lets them talk. It becomes revoked when the policy does not (Judge). Nothing is reported before.
// What can be sealed against writing is out of everybody's hands and is forgotten. What cannot is looked at again, ever more seldom.
//
// Thread safety: every method from any thread. Start makes a thread of its own when there is something to check, because a check can
// block for a tenth of a second while a pod has pages pinned, and looking for holders reads all of /proc.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "base/unique_fd.h"
#include "node-agent/broker/endpoint.h"
#include "node-agent/broker/event.h"
#include "node-agent/broker/options.h"
#include "node-agent/model/mapping_probe.h"
#include "node-agent/model/verdict.h"

namespace vsocket::broker {

// A region without an allowed connection: its memory, and the last connection that it carried.
struct ForsakenMemory {
  std::shared_ptr<const UniqueFd> memory;
  std::array<std::string, 2> pod;     // uid, by side
  std::array<std::int32_t, 2> pid{};  // of the processes that it was granted to; for the log
  Tuple tuple;                        // of one of its ends
  model::Flow flow;                   // as it was judged
};

struct RevocationStats {
  std::uint32_t watched = 0;   // revoked, and not known to be let go of
  std::uint64_t unheeded = 0;  // reported
  std::uint64_t killed = 0;    // processes
};

class RevocationWatch {
 public:
  // Over this many entries the oldest is given up, which is reported.
  static constexpr std::size_t kMaxEntries = 4096;

  // `probe` is not null; `clock` gives CLOCK_MONOTONIC nanoseconds and is called from any thread, like `events`.
  RevocationWatch(RevocationOptions options, std::shared_ptr<model::MappingProbe> probe, EventSink events,
                  std::function<std::uint64_t()> clock);
  ~RevocationWatch();  // waits for a check that runs
  RevocationWatch(const RevocationWatch&) = delete;
  RevocationWatch& operator=(const RevocationWatch&) = delete;

  // From here on due checks are made by themselves.
  void Start();
  void AddRevoked(ForsakenMemory memory, std::string why);
  void AddLeft(ForsakenMemory memory);
  // `forbids` says why, when the connection is not allowed any more. Called for every left one, with the watch locked.
  void Judge(const std::function<std::optional<std::string>(const Tuple&, const model::Flow&)>& forbids);
  // The pod's address may be another's from now on: what it left is not judged any more.
  void ForgetLeftBy(const std::string& pod);
  [[nodiscard]] RevocationStats Stats() const;

  // Makes the checks that are due; gives when the next one is, 0: never. What the thread does; tests do it themselves.
  std::uint64_t CheckDue();

 private:
  struct Entry {
    ForsakenMemory memory;
    bool revoked = false;
    std::string why;                // revoked
    std::uint64_t deadline_ns = 0;  // revoked
    bool reported = false;
    std::uint64_t due_ns = 0;
    std::uint64_t pause_ns = 0;  // until the check after the next one
  };

  void Add(Entry entry);
  void Run();
  void Settle(const std::shared_ptr<Entry>& entry, model::SealOutcome outcome);
  void Report(const Entry& entry, model::SealOutcome outcome);
  void Say(Event::Level level, const char* what, const Entry& entry, Event::Fields more) const;
  [[nodiscard]] std::uint64_t NextDue() const;  // mutex_ held

  const RevocationOptions options_;
  const std::shared_ptr<model::MappingProbe> probe_;
  const EventSink events_;
  const std::function<std::uint64_t()> clock_;

  mutable std::mutex mutex_;  // guards what follows, entries too; not held while the probe or the sink is called
  std::condition_variable changed_;
  std::list<std::shared_ptr<Entry>> entries_;  // oldest first
  RevocationStats stats_;
  bool started_ = false, over_ = false;
  std::thread thread_;
};

}  // namespace vsocket::broker
