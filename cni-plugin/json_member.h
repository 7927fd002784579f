// The bytes of one member of a JSON object, as they are in the text.
#pragma once

#include <string_view>

namespace vsocket::cni {

// The value of the last member named `key` (unescaped comparison, as the parser's) of the object that `text` is; empty when there is
// none. `text` must have been accepted by a JSON parser; of any other text the answer is some part of it or empty.
// A result that is passed on must stay as it was written: parsing and printing it again would reorder members and reformat numbers.
std::string_view FindMember(std::string_view text, std::string_view key);

}  // namespace vsocket::cni
