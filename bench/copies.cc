// How fast two processors pass bytes through a ring of 256 KiB, by memmove(3) and by channel/copy.h, at several distances between the
// stream's place in the ring and in the program's buffer, modulo the page. Prints a table; needs two processors.
//
//     vsocket-bench-copies [ROUNDS]
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "channel/copy.h"

namespace {

constexpr std::size_t kRing = 256 << 10;
constexpr std::size_t kBuffer = 128 << 10;  // what iperf3 sends at once
constexpr std::size_t kPage = 4096;
constexpr std::uint64_t kBytes = 1ULL << 30;
constexpr std::size_t kDistances[] = {0, 37, 64, 100, 2060, 4059};

using Copy = void (*)(void*, const void*, std::size_t);
void ByMemmove(void* to, const void* from, std::size_t size) {
  std::memmove(to, from, size);
}

struct Words {
  alignas(128) std::atomic<std::uint64_t> tail;
  alignas(128) std::atomic<std::uint64_t> head;
};

struct Shared {
  Words* words;
  std::byte* ring;
};

void RunOn(int processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) std::perror("sched_setaffinity");
}

std::byte* Buffer() {
  auto* buffer = static_cast<std::byte*>(std::aligned_alloc(kPage, kBuffer));
  if (buffer == nullptr) std::abort();
  std::memset(buffer, 1, kBuffer);
  return buffer;
}

void Produce(Shared shared, Copy copy, std::uint64_t start) {
  const std::byte* buffer = Buffer();
  std::size_t used = 0;
  for (std::uint64_t tail = start; tail < start + kBytes;) {
    const std::uint64_t room = kRing - (tail - shared.words->head.load(std::memory_order_acquire));
    const std::uint64_t size = std::min({room, kBuffer - used, kRing - tail % kRing, start + kBytes - tail});
    if (size == 0) continue;
    copy(shared.ring + tail % kRing, buffer + used, size);
    used = (used + size) % kBuffer;
    tail += size;
    shared.words->tail.store(tail, std::memory_order_release);
  }
}

// Gbit/s.
double Consume(Shared shared, Copy copy, std::uint64_t start) {
  std::byte* buffer = Buffer();
  std::size_t used = 0;
  const auto began = std::chrono::steady_clock::now();
  for (std::uint64_t head = start; head < start + kBytes;) {
    const std::uint64_t size = std::min({shared.words->tail.load(std::memory_order_acquire) - head, kBuffer - used, kRing - head % kRing});
    if (size == 0) continue;
    copy(buffer + used, shared.ring + head % kRing, size);
    used = (used + size) % kBuffer;
    head += size;
    shared.words->head.store(head, std::memory_order_release);
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  std::free(buffer);
  return static_cast<double>(kBytes) * 8 / took.count() / 1e9;
}

double Measure(Shared shared, Copy copy, std::size_t distance) {
  shared.words->tail = shared.words->head = distance;
  const pid_t producer = fork();
  if (producer < 0) std::abort();
  if (producer == 0) {
    RunOn(0);
    Produce(shared, copy, distance);
    _exit(0);
  }
  RunOn(1);
  const double speed = Consume(shared, copy, distance);
  waitpid(producer, nullptr, 0);
  return speed;
}

double Median(Shared shared, Copy copy, std::size_t distance, int rounds) {
  std::vector<double> speeds;
  for (int i = 0; i < rounds; ++i) speeds.push_back(Measure(shared, copy, distance));
  std::sort(speeds.begin(), speeds.end());
  return speeds[speeds.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 5;
  if (rounds < 1) {
    std::fputs("usage: vsocket-bench-copies [ROUNDS]\n", stderr);
    return 2;
  }
  void* memory = mmap(nullptr, kRing + kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("mmap");
    return 1;
  }
  const Shared shared = {static_cast<Words*>(memory), static_cast<std::byte*>(memory) + kPage};
  std::memset(shared.ring, 0, kRing);
  std::puts("| distance | memmove | copy.h | |\n| --- | --- | --- | --- |");
  for (const std::size_t distance : kDistances) {
    const double theirs = Median(shared, ByMemmove, distance, rounds);
    const double ours = Median(shared, vsocket::channel::CopyBytes, distance, rounds);
    std::printf("| %zu | %.0f Gbit/s | %.0f Gbit/s | %.1fx |\n", distance, theirs, ours, ours / theirs);
  }
  return 0;
}
