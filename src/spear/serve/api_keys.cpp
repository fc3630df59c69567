#include "spear/serve/api_keys.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include <fmt/format.h>
#include <sys/stat.h>

#include "spear/base/error.h"

namespace spear {
namespace {

bool same_key(std::string_view given, std::string_view key) {
  auto difference = static_cast<unsigned>(given.size() != key.size());
  for (size_t i = 0; i < given.size(); ++i)
    difference |= static_cast<unsigned char>(given[i]) ^
                  static_cast<unsigned char>(key.empty() ? 1 : key[i % key.size()]);
  return difference == 0;
}

}  // namespace

ApiKeys::ApiKeys(std::vector<std::string> keys) : keys_(std::move(keys)) {
  for (const std::string& key : keys_) {
    const bool printable =
        std::all_of(key.begin(), key.end(), [](char c) { return c > ' ' && c < 0x7f; });
    if (key.empty() || !printable)
      throw Failure(ErrorCode::kUsage,
                    "API keys: one or more printable characters without spaces expected");
  }
}

ApiKeys ApiKeys::from_file(const std::filesystem::path& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0)
    throw Failure(ErrorCode::kNotFound, fmt::format("{}: {}", path.string(), std::strerror(errno)));
  if ((status.st_mode & (S_IROTH | S_IWOTH)) != 0)
    throw Failure(
        ErrorCode::kUsage,
        fmt::format("{}: other users may read or write these keys; chmod 600 it", path.string()));
  std::ifstream file(path);
  std::vector<std::string> keys;
  for (std::string line; std::getline(file, line);) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (!line.empty() && line.front() != '#') keys.push_back(std::move(line));
  }
  if (keys.empty())
    throw Failure(ErrorCode::kUsage,
                  fmt::format("{}: at least one API key expected, found none", path.string()));
  return ApiKeys(std::move(keys));
}

bool ApiKeys::allows(std::string_view authorization) const {
  if (keys_.empty()) return true;
  constexpr std::string_view kScheme = "bearer ";
  const bool bearer =
      authorization.size() > kScheme.size() &&
      std::equal(kScheme.begin(), kScheme.end(), authorization.begin(),
                 [](char a, char b) { return a == (b >= 'A' && b <= 'Z' ? b - 'A' + 'a' : b); });
  if (!bearer) return false;
  bool found = false;  // every key is looked at, whichever fits
  for (const std::string& key : keys_)
    found = same_key(authorization.substr(kScheme.size()), key) || found;
  return found;
}

}  // namespace spear
