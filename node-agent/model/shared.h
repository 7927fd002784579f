// An immutable value that copies of a structure share: copying is one reference count, and comparing with what it was copied from is one
// comparison of addresses. So a snapshot of a cluster costs a word an object, and finding what changed since the last costs little more.
//
// Invariant: the value behind a Shared never changes; Edit gives this one a value of its own first.
//
// Thread safety: as std::shared_ptr: several threads may copy and read; one object is written by one thread.
#pragma once

#include <memory>
#include <utility>

namespace vsocket::model {

template <typename T>
class Shared {
 public:
  Shared() : Shared(T()) {}
  // Implicit: a Shared<T> stands wherever a T does.
  Shared(T value) : value_(std::make_shared<const T>(std::move(value))) {}  // NOLINT(google-explicit-constructor)
  // Not null. May alias a part of a larger immutable object.
  explicit Shared(std::shared_ptr<const T> value) : value_(std::move(value)) {}

  operator const T&() const { return *value_; }  // NOLINT(google-explicit-constructor)
  const T& operator*() const { return *value_; }
  const T* operator->() const { return value_.get(); }

  // A value that nobody else sees. The reference is for writing before this object is copied.
  T& Edit() {
    auto own = std::make_shared<T>(*value_);
    T& writable = *own;
    value_ = std::move(own);
    return writable;
  }

  // The same value, by address.
  [[nodiscard]] bool Is(const Shared& other) const { return value_ == other.value_; }
  bool operator==(const Shared& other) const { return value_ == other.value_ || *value_ == *other.value_; }

 private:
  std::shared_ptr<const T> value_;
};

}  // namespace vsocket::model
