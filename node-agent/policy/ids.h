// Numbers by which the stages of the compiler name what they hold to each other. A number is used again after what it named is gone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace vsocket::policy {

using PodId = std::uint32_t;       // a pod as policies see it
using IdentityId = std::uint32_t;  // a namespace and a set of labels
using GroupId = std::uint32_t;     // a selector, and the identities that it matches
using PolicyId = std::uint32_t;
inline constexpr std::uint32_t kNone = 0xffffffff;

enum class Direction : std::uint8_t { kIngress, kEgress };
inline constexpr Direction kDirections[] = {Direction::kIngress, Direction::kEgress};
constexpr std::size_t Index(Direction direction) {
  return static_cast<std::size_t>(direction);
}

// Values by number, with the numbers of removed ones given out again.
template <typename T>
class Slots {
 public:
  std::uint32_t Add(T value) {
    ++count_;
    if (free_.empty()) {
      values_.push_back(std::move(value));
      return static_cast<std::uint32_t>(values_.size() - 1);
    }
    const std::uint32_t id = free_.back();
    free_.pop_back();
    values_[id] = std::move(value);
    return id;
  }
  void Remove(std::uint32_t id) {
    values_[id] = T();
    free_.push_back(id);
    --count_;
  }
  T& operator[](std::uint32_t id) { return values_[id]; }
  const T& operator[](std::uint32_t id) const { return values_[id]; }
  [[nodiscard]] std::size_t Count() const { return count_; }

 private:
  std::vector<T> values_;
  std::vector<std::uint32_t> free_;
  std::size_t count_ = 0;
};

}  // namespace vsocket::policy
