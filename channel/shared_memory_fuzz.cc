// libFuzzer target for the shared memory: one honest end of a connection (it sends one direction and receives the other) in a slot that
// the input may write anywhere, at any moment, also between two steps of the honest end.
//
// The input is a script: an operation a byte, and its arguments. A sanitizer sees steps out of the memory; `Check` holds the honest end's
// own state to its bounds after each operation. That the peer's bytes are garbage is not a fault: only this connection is hurt.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "channel/testing/direction_ends.h"

namespace vsocket::channel::testing {
namespace {

// Of exactly a ring's size, so that a sanitizer sees the first byte beyond. Kept from run to run: no decision rests on what is in them.
std::byte* const out_ring = new std::byte[kRingMax]();
std::byte* const in_ring = new std::byte[kRingMax]();

#define CHECK(condition)                                                   \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                        \
    }                                                                      \
  } while (false)

// The rest of the input. When it is at its end, zeros.
class Script {
 public:
  Script(const std::uint8_t* data, std::size_t size) : rest_(data, size) {}

  [[nodiscard]] bool Empty() const { return rest_.empty(); }
  std::uint8_t Byte() { return static_cast<std::uint8_t>(Number(1)); }
  std::uint16_t Short() { return static_cast<std::uint16_t>(Number(2)); }
  std::uint64_t Long() { return Number(8); }
  std::size_t Size() { return Short() * 5ULL >> (Byte() % 16); }  // up to more than any ring holds

  std::span<const std::uint8_t> Bytes(std::size_t size) {
    const auto taken = rest_.first(size < rest_.size() ? size : rest_.size());
    rest_ = rest_.subspan(taken.size());
    return taken;
  }

 private:
  std::uint64_t Number(std::size_t size) {
    std::uint64_t number = 0;
    const auto bytes = Bytes(size);
    std::memcpy(&number, bytes.data(), bytes.size());
    return number;
  }

  std::span<const std::uint8_t> rest_;
};

class Scene {
 public:
  explicit Scene(Script* script)
      : script_(script),
        out_tcp_(1 << 20),
        in_tcp_(1 << 20),
        sender_({&slot_->side[0], &slot_->side[1], out_ring, &out_tcp_}, StartOf(script_->Byte())),
        receiver_({&slot_->side[0], &slot_->side[1], in_ring, &in_tcp_}, StartOf(script_->Byte())) {
    sender_.interleave = receiver_.interleave = [this] {
      if (!script_->Empty() && script_->Byte() < 64) WriteWord();
    };
  }

  // Until the input ends, or the honest end calls the peer broken: then it touches the memory no more.
  void Run() {
    bool alive = true;
    while (alive && !script_->Empty()) {
      alive = Step();
      Check();
    }
  }

 private:
  // The beginning of a stream, a full ring before 2^32, and other places where an index may go wrong.
  static std::uint64_t StartOf(std::uint8_t choice) {
    constexpr std::uint64_t kStarts[] = {0, kRingMax - 1, (1ULL << 32) - kRingMax, (1ULL << 62) - 3};
    return kStarts[choice % 4] + choice / 4;
  }

  bool Step() {
    switch (script_->Byte() % 14) {
      case 0:
        return Send();
      case 1:
        (void)sender_.GoUp(script_->Byte());
        return true;
      case 2:
        return sender_.GoDown();
      case 3:
        out_tcp_.SetRoom(script_->Short());
        sender_.Flush();
        return true;
      case 4:
        sender_.Bell();
        return true;
      case 5:
        return sender_.TryResize(kRingMinLog2 + script_->Byte() % (kRingMaxLog2 - kRingMinLog2 + 1));
      case 6:
        return Receive(script_->Byte() % 4 == 0);
      case 7:
        return receiver_.TakeFrames(kSwitchFrameSize + script_->Byte() % 52);
      case 8:
        receiver_.Abandon();
        return true;
      case 9:
        FromPeerByTcp(script_->Bytes(script_->Byte()));
        return true;
      case 10:
        SwitchFromPeer();
        return true;
      case 11:
        if (script_->Byte() % 8 == 0) in_tcp_.Close();
        return true;
      case 12:
        ProposalFromPeer();
        return true;
      default:
        WriteWord();
        return true;
    }
  }

  bool Send() {
    const std::vector<std::uint8_t> bytes(script_->Size(), 'x');
    const std::uint64_t before = sender_.Ring().pos;
    const auto sent = sender_.Send(bytes);
    if (!sent) return false;
    CHECK(*sent <= bytes.size());
    CHECK(sender_.Ring().pos == before + *sent);
    CHECK(sender_.LastWaiter() < kFirstWakeFd + kWakeFdsPerSide);
    out_tcp_.Deliver(SIZE_MAX);
    out_tcp_.Discard(out_tcp_.Peek().size());
    return true;
  }

  bool Receive(bool peek) {
    std::vector<std::uint8_t> into(1 + script_->Size());
    const std::uint64_t before = receiver_.Ring().pos;
    const ReceiverEnd::Received got = receiver_.Receive(into, kSwitchFrameSize + script_->Byte() % 52, peek);
    CHECK(got.size <= into.size());
    CHECK((got.outcome == ReceiverEnd::Outcome::kBytes) == (got.size != 0));
    CHECK(receiver_.Ring().pos == (peek ? before : before + got.size));
    return got.outcome != ReceiverEnd::Outcome::kBroken;
  }

  void FromPeerByTcp(std::span<const std::uint8_t> bytes) {
    (void)in_tcp_.Send(bytes);
    in_tcp_.Deliver(SIZE_MAX);
  }

  // What random bytes would seldom be: bells, then a SWITCH that is nearly right.
  void SwitchFromPeer() {
    const SwitchReceiver& rx = receiver_.Switch();
    std::vector<std::uint8_t> frames(script_->Byte() % 70, rx.marker);
    frames.push_back(static_cast<std::uint8_t>(rx.marker + 1));
    const std::uint32_t generation = rx.generation + (script_->Byte() % 16 == 0);
    const std::uint64_t resume_at = Near(receiver_.Ring().pos);
    frames.resize(frames.size() + sizeof generation + sizeof resume_at);
    std::memcpy(frames.data() + frames.size() - sizeof generation - sizeof resume_at, &generation, sizeof generation);
    std::memcpy(frames.data() + frames.size() - sizeof resume_at, &resume_at, sizeof resume_at);
    FromPeerByTcp(frames);
  }

  // And a proposal that is nearly right, over bytes that are there.
  void ProposalFromPeer() {
    SideWords& theirs = slot_->side[1];
    const std::uint64_t start = receiver_.Ring().pos + in_tcp_.Peek().size() + script_->Byte() % 4;
    theirs.capacity_log2.store(kRingMinLog2 + script_->Byte() % 5);
    theirs.tail.store(start + script_->Short() * 4ULL);
    theirs.proposal_marker.store(script_->Byte());
    theirs.proposal_start.store(start);
    theirs.proposal_generation.store(NextGeneration(receiver_.Switch().generation) + (script_->Byte() % 16 == 0));
  }

  // A position of the peer's choice: about here, about a ring away, or anything.
  std::uint64_t Near(std::uint64_t position) {
    const std::uint8_t how = script_->Byte();
    const std::uint64_t step = script_->Short();
    switch (how % 6) {
      case 0:
        return position + step;
      case 1:
        return position - step;
      case 2:
        return position + (1ULL << (kRingMinLog2 + how / 6 % 6)) - step % 4 + 1;
      case 3:
        return position - (1ULL << (kRingMinLog2 + how / 6 % 6)) + step % 4 - 1;
      case 4:
        return position;
      default:
        return script_->Long();
    }
  }

  // Any word of either side: the peer has the whole slot mapped, not only its own half.
  void WriteWord() {
    const std::uint8_t which = script_->Byte();
    SideWords& words = slot_->side[which & 1];
    const std::uint64_t base = which & 2 ? sender_.Ring().pos : receiver_.Ring().pos;
    const std::uint64_t value = Near(base);
    const auto small = static_cast<std::uint32_t>(which & 4 ? value % 64 : value);
    switch (which / 8 % 14) {
      case 0:
      case 1:
        words.tail.store(value);
        break;
      case 2:
      case 3:
        words.head.store(value);
        break;
      case 4:
        words.capacity_log2.store(small);
        break;
      case 5:
        words.data_waiter.store(small);
        break;
      case 6:
        words.space_waiter.store(small);
        break;
      case 7:
        words.finished_generation.store(which & 4 ? sender_.Switch().generation : small);
        break;
      case 8:
        words.proposal_generation.store(small);
        break;
      case 9:
        words.proposal_marker.store(small);
        break;
      case 10:
        words.proposal_start.store(value);
        break;
      case 11:
        in_ring[value % kRingMax] = static_cast<std::byte>(which);
        break;
      case 12:
        out_ring[value % kRingMax] = static_cast<std::byte>(which);
        break;
      default: {  // and what has no name: the whole half at once
        words.gate.store(small);
        words.attached.store(small);
        words.bells.store(small);
        words.tcp_sent.store(value);
        words.tcp_offered.store(value);
      }
    }
  }

  void Check() {
    const ProducerState& out = sender_.Ring();
    CHECK(out.capacity_log2 >= kRingMinLog2 && out.capacity_log2 <= kRingMaxLog2);
    CHECK(out.pos >= last_out_.pos);
    CHECK(out.seen_head <= out.pos);
    const SwitchSender& tx = sender_.Switch();
    if (tx.mode != SwitchSender::Mode::kTcp) {
      CHECK(out.seen_head >= last_out_.seen_head);
      CHECK(Room(out) <= 1ULL << out.capacity_log2);  // the subtraction has not wrapped
    }
    if (tx.mode == SwitchSender::Mode::kLeaving) {
      CHECK(tx.frame_sent <= kSwitchFrameSize);
      CHECK(tx.replay_from <= tx.replay_end && tx.replay_end == out.pos);
      CHECK(tx.replay_end - tx.replay_from <= 1ULL << out.capacity_log2);
    }
    const ConsumerState& in = receiver_.Ring();
    CHECK(in.capacity_log2 >= kRingMinLog2 && in.capacity_log2 <= kRingMaxLog2);
    CHECK(in.pos >= last_in_.pos);
    const SwitchReceiver& rx = receiver_.Switch();
    if (rx.mode != SwitchReceiver::Mode::kTcp) {
      CHECK(in.seen_tail >= in.pos);
      if (rx.generation == last_generation_) CHECK(in.seen_tail >= last_in_.seen_tail);
      CHECK(Available(in) <= 1ULL << in.capacity_log2);
    }
    if (rx.mode == SwitchReceiver::Mode::kDraining) {
      CHECK(in.pos <= rx.drain_until && rx.drain_until <= in.seen_tail);
      CHECK(rx.tcp_pos <= rx.drain_until);  // the stream goes on by TCP at a byte that the ring has, or right behind it
    }
    last_out_ = out;
    last_in_ = in;
    last_generation_ = rx.generation;
  }

  Script* script_;
  std::unique_ptr<SlotHeader> slot_ = std::make_unique<SlotHeader>();
  TcpQueue out_tcp_;
  TcpQueue in_tcp_;
  SenderEnd sender_;
  ReceiverEnd receiver_;
  ProducerState last_out_;
  ConsumerState last_in_;
  std::uint32_t last_generation_ = 0;
};

}  // namespace
}  // namespace vsocket::channel::testing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  vsocket::channel::testing::Script script(data, size);
  vsocket::channel::testing::Scene(&script).Run();
  return 0;
}
