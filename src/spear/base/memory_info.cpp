#include "spear/base/memory_info.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>

namespace spear {
namespace {

constexpr int64_t kUnknown = int64_t{4} << 30;

std::optional<int64_t> number_in(const char* path) {
  std::ifstream file(path);
  int64_t value = 0;  // "max" is no number
  if (file >> value) return value;
  return std::nullopt;
}

std::optional<int64_t> system_memory() {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  int64_t kilobytes = 0;
  while (file >> name >> kilobytes) {
    if (name == "MemAvailable:") return kilobytes * 1024;
    std::getline(file, unit);
  }
  return std::nullopt;
}

}  // namespace

int64_t available_memory() {
  const std::optional<int64_t> system = system_memory();
  const std::optional<int64_t> limit = number_in("/sys/fs/cgroup/memory.max");
  const std::optional<int64_t> used = number_in("/sys/fs/cgroup/memory.current");
  int64_t available = system.value_or(kUnknown);
  if (limit && used) available = std::min(available, std::max<int64_t>(*limit - *used, 0));
  return available;
}

}  // namespace spear
