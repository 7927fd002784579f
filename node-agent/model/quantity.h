// A quantity as Kubernetes writes it (apimachinery, resource.Quantity): "10M", "1.5Gi", "100e6", "500m".
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace vsocket::model {

// The value, rounded away from zero to a whole number, as Quantity.Value() gives it; what does not fit is the largest or smallest number
// that does. nullopt: not a quantity. Grammar: [+-] digits [. digits] [n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e[+-]digits|E[+-]digits].
std::optional<std::int64_t> ParseQuantity(std::string_view text);

}  // namespace vsocket::model
