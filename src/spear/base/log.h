// The library never prints: it logs through here, and the program says where lines go. Any thread
// may log.
#pragma once

#include <functional>
#include <string_view>

namespace spear {

enum class LogLevel { kDebug, kInfo, kWarning };

using LogSink = std::function<void(LogLevel, std::string_view)>;

// Called once by the program before it starts threads; without it lines are dropped.
void set_log_sink(LogSink sink);
void log(LogLevel level, std::string_view line);

}  // namespace spear
