// What a function that can fail returns: a value, or an error that says why. No exceptions, no errno.
#pragma once

#include <cassert>
#include <utility>
#include <variant>

namespace vsocket {

template <typename E>
class Failure {
 public:
  explicit Failure(E error) : error_(std::move(error)) {}
  [[nodiscard]] E&& Take() { return std::move(error_); }

 private:
  E error_;
};

template <typename T, typename E>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}           // NOLINT: a value is a result
  Result(Failure<E> failure) : state_(std::in_place_index<1>, failure.Take()) {}  // NOLINT: so is a failure

  [[nodiscard]] bool Ok() const { return state_.index() == 0; }
  explicit operator bool() const { return Ok(); }

  // Requires Ok().
  [[nodiscard]] T& Value() {
    assert(Ok());
    return *std::get_if<0>(&state_);
  }
  [[nodiscard]] const T& Value() const {
    assert(Ok());
    return *std::get_if<0>(&state_);
  }
  T& operator*() { return Value(); }
  T* operator->() { return &Value(); }

  // Requires !Ok().
  [[nodiscard]] const E& Error() const {
    assert(!Ok());
    return *std::get_if<1>(&state_);
  }

 private:
  std::variant<T, E> state_;
};

}  // namespace vsocket
