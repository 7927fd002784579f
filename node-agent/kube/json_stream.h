// Cuts what an API server sends into the texts of single objects while it arrives, in bounded memory whatever is sent.
//
// The answer to a list holds its objects in `items`, one page of them; a watch is one object a line, for as long as it lasts
// (https://kubernetes.io/docs/reference/using-api/api-concepts/). Here an object ends where its last brace does, so line breaks inside or
// between objects change nothing. What is cut out is not yet known to be JSON: json_tree.h finds out.
//
// Thread safety: none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace vsocket::kube {

// False: stop; the caller has seen enough.
using ObjectText = std::function<bool(std::string_view)>;

// Where in a JSON text we are: how deep, and whether inside a text.
class JsonScanner {
 public:
  // The brackets that are open after this byte. A closing bracket without an open one leaves it at 0 and sets Broken.
  std::size_t Next(char c);
  [[nodiscard]] std::size_t Depth() const { return depth_; }
  [[nodiscard]] bool InText() const { return in_text_; }
  [[nodiscard]] bool Broken() const { return broken_; }

 private:
  std::size_t depth_ = 0;
  bool in_text_ = false;
  bool escaped_ = false;
  bool broken_ = false;
};

struct StreamLimits {
  std::size_t object_bytes = std::size_t{8} << 20;  // etcd holds no object of more than 1.5 MiB unless it was told to
  std::size_t envelope_bytes = std::size_t{1} << 20;
};

class WatchDecoder {
 public:
  explicit WatchDecoder(StreamLimits limits = {}) : limits_(limits) {}
  // Calls `object` with each object that is complete by now. False: nothing more can be made of the stream; Error says why, and is empty
  // when `object` asked to stop.
  bool Feed(std::string_view bytes, const ObjectText& object);
  [[nodiscard]] const std::string& Error() const { return error_; }
  // Some of an object has come, and not all of it.
  [[nodiscard]] bool Incomplete() const { return scanner_.Depth() > 0; }

 private:
  const StreamLimits limits_;
  JsonScanner scanner_;
  std::string text_;  // of the object that is arriving, as far as it came in earlier pieces
  std::string error_;
};

struct ListEnd {
  std::string resource_version;
  std::string continue_token;  // empty: this was the last page
};

// One page of a list.
class ListDecoder {
 public:
  explicit ListDecoder(StreamLimits limits = {}) : limits_(limits) {}
  // As WatchDecoder's, called with each item.
  bool Feed(std::string_view bytes, const ObjectText& item);
  [[nodiscard]] const std::string& Error() const { return error_; }
  // To be asked when the answer is over: fails when it was cut short or is no list with a resource version.
  Result<ListEnd, std::string> Finish();

 private:
  enum class At : std::uint8_t { kEnvelope, kBetweenItems, kItem };
  bool Refuse(std::string what);
  bool InEnvelope(char c);
  bool BetweenItems(char c);

  const StreamLimits limits_;
  JsonScanner scanner_;
  At at_ = At::kEnvelope;
  bool had_items_ = false;
  std::string envelope_;        // the page without its items
  std::size_t text_begin_ = 0;  // in envelope_: where the latest text on the first level begins
  bool text_is_items_ = false;  // the latest text on the first level is "items"
  std::string item_;            // as far as it came in earlier pieces
  std::string error_;
};

}  // namespace vsocket::kube
