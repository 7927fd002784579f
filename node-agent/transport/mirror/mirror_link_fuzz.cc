// libFuzzer target for a link whose far agent and whose pods are hostile: immediate data, control messages, position cells and ring bytes
// are the input's, and so is every word of the slots. The honest agent must stay inside its memory and the far side's rings (the script's
// device checks each request), and keep the words that it stores within the bounds of what it was told.
//
// The input is a script: an operation a byte, and its arguments.
#include <sys/mman.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "node-agent/transport/mirror/link.h"
#include "node-agent/transport/mirror/testing/script_fabric.h"
#include "node-agent/transport/region.h"

namespace vsocket::transport::testing {
namespace {

#define CHECK(condition)                                                   \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                        \
    }                                                                      \
  } while (false)

constexpr std::uint32_t kConnections = 3;
constexpr std::uint32_t kFarKey = 0xabcd;
constexpr std::uint64_t kFarRings = 0x100000000;  // addresses of the far agent; nothing of ours is there
constexpr std::uint64_t kFarBoard = 0x900000000;

class Script {
 public:
  Script(const std::uint8_t* data, std::size_t size) : rest_(data, size) {}
  [[nodiscard]] bool Empty() const { return rest_.empty(); }
  std::uint8_t Byte() { return static_cast<std::uint8_t>(Number(1)); }
  std::uint16_t Short() { return static_cast<std::uint16_t>(Number(2)); }
  std::uint64_t Number(std::size_t size) {
    std::uint64_t number = 0;
    size = size < rest_.size() ? size : rest_.size();
    std::memcpy(&number, rest_.data(), size);
    rest_ = rest_.subspan(size);
    return number;
  }

 private:
  std::span<const std::uint8_t> rest_;
};

// One region for all runs, with its rings registered: its words are zeroed for each.
struct Memory {
  Memory() {
    auto made = Region::Create(1, UINT64_MAX);
    CHECK(made);
    region = std::move(made.Value());
    void* mapped = ::mmap(nullptr, channel::kRegionBytes, PROT_READ | PROT_WRITE, MAP_SHARED, region->Fd(), 0);
    CHECK(mapped != MAP_FAILED);
    map = static_cast<std::byte*>(mapped);
    auto mapped_rings = RingMemory::Map(region->Fd(), 0, device);
    CHECK(mapped_rings && mapped_rings.Value()->Use(0));
    rings = std::move(mapped_rings.Value());
  }
  std::unique_ptr<Region> region;
  ScriptDevice device;
  std::unique_ptr<RingMemory> rings;
  std::byte* map = nullptr;
};

class Scene final : public MirrorHost {
 public:
  Scene(Script* script, Memory* memory) : script_(script), memory_(memory), device_(memory->device), rings_(memory->rings.get()) {
    const std::uint8_t how = script_->Byte();
    MirrorOptions options;
    options.spin_ns = how & 1 ? 1000 : 0;
    options.inline_bytes = how & 2 ? 16 : 256;
    for (LaneOptions& lane : options.lanes) lane.sends = lane.receives = 16;
    device_.completions.clear();
    device_.lanes.clear();
    device_.far.clear();
    auto link = Link::Create(device_, *this, options);
    CHECK(link);
    link_ = std::move(link.Value());
    LinkAddress far;
    far.version = kWireVersion;
    far.receives = {16, 16, 16};
    far.board = kFarBoard;
    far.board_key = kFarKey;
    device_.far.push_back({kFarBoard, kFarBoard + kMaxConnections * sizeof(PositionCell), kFarKey, true});
    device_.far.push_back({kFarRings, kFarRings + kConnections * channel::kRemoteRingMax, kFarKey, true});
    CHECK(link_->Connect(far, now_ns_));
    for (std::uint16_t i = 0; i < kConnections; ++i) Open(i);
  }
  void Run() {
    while (!script_->Empty() && !link_->Failed()) {
      Step();
      for (std::uint16_t i = 0; i < kConnections; ++i) Check(i);
    }
  }

  void WakePod(std::uint16_t connection, std::uint32_t target) override {
    CHECK(connection < kConnections && target < channel::kFirstWakeFd + channel::kWakeFdsPerSide);
  }
  void FarSideWantsBell(std::uint16_t connection) override { CHECK(connection < kConnections); }
  void PathLost(const PathReport& report, const std::string&) override { lost_.push_back(report.connection); }
  void Closed(std::uint16_t connection) override { closed_.push_back(connection); }

 private:
  void Open(std::uint16_t number) {
    memory_->region->PrepareSlot(number, ++epoch_);
    ConnectionSpec spec;
    spec.number = number;
    spec.epoch = epoch_;
    spec.memory = rings_;
    spec.slot = number;
    spec.wake_target = channel::kFirstWakeFd;
    spec.path = epoch_;
    spec.far_ring = kFarRings + number * channel::kRemoteRingMax;
    spec.far_key = kFarKey;
    CHECK(link_->Open(spec));
    epochs_[number] = epoch_;
  }

  void Step() {
    switch (script_->Byte() % 14) {
      case 0:
      case 1:
        return Immediate();
      case 2:
      case 3:
        return Control(1 + script_->Byte() % 3);
      case 4:
        return RawControl();
      case 5:
        return Done();
      case 6:
      case 7:
        now_ns_ += script_->Short() * 1000ULL;
        (void)link_->Poll(now_ns_);
        return CloseSome();
      case 8:
        (void)link_->PrepareToSleep(now_ns_);
        return;
      case 9:
        return WriteWord();
      case 10:
        return WriteCell();
      case 11:
        return HonestPod();
      case 12:
        link_->Rung(*rings_);
        return;
      default:
        now_ns_ += script_->Number(5);
        if (script_->Byte() % 8 == 0) link_->Close(static_cast<std::uint16_t>(script_->Byte() % kConnections));
    }
  }

  void CloseSome() {
    while (!lost_.empty()) {
      link_->Close(lost_.back());
      lost_.pop_back();
    }
    while (!closed_.empty() && !link_->Failed()) {
      Open(closed_.back());
      closed_.pop_back();
    }
  }

  std::uint64_t Near(std::uint64_t position) {
    const std::uint8_t how = script_->Byte();
    switch (how % 5) {
      case 0:
        return position + script_->Short();
      case 1:
        return position - script_->Short();
      case 2:
        return position + (1ULL << (channel::kRingMinLog2 + how / 5 % 6)) - how % 3 + 1;
      case 3:
        return position;
      default:
        return script_->Number(8);
    }
  }

  std::uint64_t PositionOfSome(std::uint16_t number) {
    const PathReport report = link_->Report(number);
    return script_->Byte() % 2 == 0 ? report.received : report.written;
  }

  void Receive(std::size_t lane, Completion::Kind kind, std::span<const std::byte> bytes, std::uint32_t immediate) {
    auto& receives = device_.lanes[lane]->receives;
    if (receives.empty()) return;
    const ReceiveRequest request = receives.front();
    receives.pop_front();
    const std::size_t size = bytes.size() < request.length ? bytes.size() : request.length;
    if (size != 0) std::memcpy(reinterpret_cast<void*>(request.local_address), bytes.data(), size);
    const auto length = static_cast<std::uint32_t>(kind == Completion::Kind::kReceived ? size : bytes.size());
    device_.completions.push_back({request.id, 0, CompletionStatus::kSuccess, kind, length, immediate});
  }

  void Immediate() {
    const auto number = static_cast<std::uint16_t>(script_->Byte() % (kConnections + 1));
    const std::uint32_t immediate =
        script_->Byte() % 8 == 0 ? static_cast<std::uint32_t>(script_->Number(4)) : EncodeImmediate(number, Near(PositionOfSome(number)));
    Receive(script_->Byte() % 2, Completion::Kind::kReceivedImmediate, {}, immediate);
  }

  void Control(std::uint16_t records) {
    ControlMessage message;
    message.header.records = records;
    for (std::uint16_t i = 0; i < records; ++i) {
      Record& record = message.records[i];
      record.type = static_cast<RecordType>(1 + script_->Byte() % kLastRecordType);
      record.connection = static_cast<std::uint16_t>(script_->Byte() % (kConnections + 1));
      record.epoch = script_->Byte() % 16 == 0 ? 0 : epochs_[record.connection % kConnections];
      record.small = {script_->Byte(), static_cast<std::uint32_t>(script_->Short())};
      if (record.type == RecordType::kPropose) record.small[1] = (channel::kRingMinLog2 + script_->Byte() % 4U) << 8;
      if (record.type == RecordType::kResize || record.type == RecordType::kResized)
        record.small = {channel::kRingMinLog2 + script_->Byte() % 4U, script_->Byte()};
      record.large = {Near(PositionOfSome(record.connection)), script_->Byte()};
    }
    message.header.reposted = reposted_;
    if (script_->Byte() % 4 == 0) message.header.reposted[script_->Byte() % kLanes] += script_->Byte();
    std::array<std::byte, kControlBytes> bytes{};
    const std::size_t size = EncodeControl(message, bytes);
    Receive(2, Completion::Kind::kReceived, std::span(bytes).first(size), 0);
  }

  void RawControl() {
    std::vector<std::byte> bytes(script_->Byte());
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(script_->Byte());
    Receive(2, script_->Byte() % 8 == 0 ? Completion::Kind::kReceivedImmediate : Completion::Kind::kReceived, bytes, 0);
  }

  // Some of what was posted is done, and the far side says that it posted its receives anew.
  void Done() {
    const std::size_t lane = script_->Byte() % kLanes;
    auto& posted = device_.lanes[lane]->posted;
    const std::uint8_t how = script_->Byte();
    std::size_t count = how % 8;
    std::uint64_t last = 0;
    for (; count != 0 && !posted.empty(); --count) {
      last = posted.front();
      posted.pop_front();
      ++reposted_[lane];
    }
    if (how == 255) device_.completions.push_back({script_->Number(8), 0, CompletionStatus::kSuccess, Completion::Kind::kSent, 0, 0});
    if (last == 0) return;
    const auto status = how == 254 ? CompletionStatus::kFlushed : CompletionStatus::kSuccess;
    device_.completions.push_back({last, 0, status, Completion::Kind::kSent, 0, 0});
  }

  channel::SlotHeader& Slot(std::uint16_t number) {
    return *reinterpret_cast<channel::SlotHeader*>(memory_->map + channel::SlotOffset(number));
  }

  void WriteWord() {
    const auto number = static_cast<std::uint16_t>(script_->Byte() % kConnections);
    const std::size_t offset = script_->Byte() % (sizeof(channel::SideWords) / 4) * 4;
    auto* word = reinterpret_cast<std::uint32_t*>(reinterpret_cast<std::byte*>(&Slot(number).side[script_->Byte() % 2]) + offset);
    std::atomic_ref(*word).store(static_cast<std::uint32_t>(Near(PositionOfSome(number))));
  }

  void WriteCell() {
    for (const ScriptDevice::Range& range : device_.local) {
      if (!range.remote_write || range.end - range.begin != kMaxConnections * sizeof(PositionCell)) continue;
      const auto number = static_cast<std::uint16_t>(script_->Byte() % kConnections);
      auto& cell = reinterpret_cast<PositionCell*>(range.begin)[number];
      cell.position = Near(link_->Report(number).received);
      cell.complement = script_->Byte() % 8 == 0 ? 0 : ~cell.position;
    }
  }

  // What random words would seldom be: a proposal, or bytes in a ring that is up.
  void HonestPod() {
    const auto number = static_cast<std::uint16_t>(script_->Byte() % kConnections);
    channel::SideWords& mine = Slot(number).side[0];
    if (script_->Byte() % 2 == 0) {
      const std::uint32_t generation = mine.proposal_generation.load() + 1;
      mine.capacity_log2.store(channel::kRingMinLog2 + script_->Byte() % 3);
      mine.proposal_start.store(script_->Number(3));
      mine.tail.store(mine.proposal_start.load());
      mine.commit.store(channel::CommitWord(channel::Commit::kProposed, generation));
      mine.proposal_generation.store(generation);
    } else {
      mine.tail.store(mine.tail.load() + script_->Short() % 20000);
    }
    link_->Rung(*rings_);
  }

  void Check(std::uint16_t number) {
    if (!link_->IsOpen(number) || link_->Failed()) return;
    const PathReport report = link_->Report(number);
    if (report.receiving_on_ring) {
      CHECK(report.told_consumed <= report.received);
      CHECK(report.received - report.told_consumed <= channel::kRemoteRingMax);
    }
    if (report.sending_on_ring) {
      CHECK(report.known_consumed <= report.written);
      CHECK(report.written - report.known_consumed <= channel::kRemoteRingMax);
    }
  }

  Script* script_;
  Memory* memory_;
  ScriptDevice& device_;
  RingMemory* rings_;
  std::unique_ptr<Link> link_;
  std::uint64_t now_ns_ = 1000;
  std::uint32_t epoch_ = 0;
  std::array<std::uint32_t, kConnections> epochs_{};
  std::array<std::uint32_t, kLanes> reposted_{};
  std::vector<std::uint16_t> lost_, closed_;
};

}  // namespace
}  // namespace vsocket::transport::testing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace vsocket::transport::testing;
  static Memory memory;
  Script script(data, size);
  Scene(&script, &memory).Run();
  return 0;
}
