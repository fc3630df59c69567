#include "spear/hub/hub_model_id.h"

#include <algorithm>

#include <fmt/format.h>

namespace spear {
namespace {

bool plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_' || c == '.';
}

bool plain_name(std::string_view text) {
  return !text.empty() && text.size() <= 96 && text.front() != '.' &&
         std::all_of(text.begin(), text.end(), plain);
}

bool revision_name(std::string_view text) {
  return safe_relative_path(text) &&
         std::all_of(text.begin(), text.end(), [](char c) { return plain(c) || c == '/'; });
}

}  // namespace

bool safe_relative_path(std::string_view path) {
  if (path.empty() || path.size() > 255) return false;
  size_t begin = 0;
  while (begin <= path.size()) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view segment = path.substr(begin, end - begin);
    if (segment.empty() || segment.front() == '.') return false;
    for (const char c : segment)
      if (c == '\\' || static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return false;
    begin = end + 1;
  }
  return true;
}

Result<HubModelId> parse_hub_model_id(std::string_view text) {
  HubModelId id;
  std::string_view rest = text;
  if (const size_t colon = rest.find(':'); colon != rest.npos) {
    id.file = rest.substr(colon + 1);
    rest = rest.substr(0, colon);
    if (!safe_relative_path(id.file))
      return fail(ErrorCode::kUsage, fmt::format("{}: a file name is expected after \":\"", text));
  }
  if (const size_t at = rest.find('@'); at != rest.npos) {
    id.revision = rest.substr(at + 1);
    rest = rest.substr(0, at);
    if (!revision_name(id.revision))
      return fail(ErrorCode::kUsage,
                  fmt::format("{}: a branch, tag or commit is expected after \"@\"", text));
  }
  const size_t slash = rest.find('/');
  if (slash == rest.npos || !plain_name(rest.substr(0, slash)) ||
      !plain_name(rest.substr(slash + 1)))
    return fail(ErrorCode::kUsage,
                fmt::format("{}: a model of a hub is written org/name, org/name@revision or "
                            "org/name:file.gguf",
                            text));
  id.repository = rest;
  return id;
}

}  // namespace spear
