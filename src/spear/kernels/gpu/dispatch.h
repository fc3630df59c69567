// Template constants from run-time values, without a macro:
//   dispatch<32, 64, 128>(group, [&](auto g) { run<g>(args); });
#pragma once

#include <stdexcept>
#include <type_traits>

namespace spear::gpu {

template <auto... kValues, class Value, class Body>
void dispatch(Value value, Body&& body) {
  const bool hit =
      ((value == kValues
            ? (static_cast<void>(body(std::integral_constant<decltype(kValues), kValues>{})), true)
            : false) ||
       ...);
  if (!hit) throw std::invalid_argument("no kernel instance for this value");
}

}  // namespace spear::gpu
