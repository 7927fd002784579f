// A line of text in a fixed buffer: the shim allocates nothing and has no printf to call in a signal handler or at exit.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vsocket::shim {

template <std::size_t N>
class Line {
 public:
  Line& Add(const char* text) {
    while (*text != '\0' && size_ < N) bytes_[size_++] = *text++;
    return *this;
  }
  Line& Add(std::uint64_t number) {
    char digits[20];
    int n = 0;
    do {
      digits[n++] = static_cast<char>('0' + number % 10);
      number /= 10;
    } while (number != 0);
    while (n > 0 && size_ < N) bytes_[size_++] = digits[--n];
    return *this;
  }
  // Inside a JSON string: anything that would need escaping becomes '?'.
  Line& AddQuoted(const char* text, std::size_t most) {
    Add("\"");
    for (std::size_t i = 0; i < most && text[i] != '\0' && size_ < N; ++i) {
      const bool plain = text[i] >= ' ' && text[i] != '"' && text[i] != '\\';
      bytes_[size_++] = plain ? text[i] : '?';
    }
    return Add("\"");
  }
  [[nodiscard]] const char* Data() const { return bytes_; }
  [[nodiscard]] std::size_t Size() const { return size_; }

 private:
  char bytes_[N];
  std::size_t size_ = 0;
};

}  // namespace vsocket::shim
