#include "spear/eval/texts.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <system_error>
#include <vector>

#include <fmt/core.h>

#include "spear/base/atomic_file.h"

namespace spear {
namespace {

namespace fs = std::filesystem;

struct KnownText {
  std::string_view name;
  std::string_view file;  // below the data folder
  bool wikitext;          // joined for the GPTQ protocol
  size_t characters;      // 0: all
};

constexpr std::array<KnownText, 5> kKnownTexts = {{
    {"wikitext2", "wikitext2/wiki.test.raw", true, 0},
    {"wikitext2-valid", "wikitext2/wiki.valid.raw", true, 0},
    {"moby_dick", "text/moby_dick.txt", false, 900'000},
    {"great_expectations", "text/great_expectations.txt", false, 0},
    {"federalist_papers", "text/federalist_papers.txt", false, 0},
}};

const KnownText* find_known(std::string_view source) {
  const auto* found = std::find_if(kKnownTexts.begin(), kKnownTexts.end(),
                                   [&](const KnownText& known) { return known.name == source; });
  return found == kKnownTexts.end() ? nullptr : found;
}

bool is_continuation(char c) {
  return (static_cast<unsigned char>(c) & 0xC0u) == 0x80u;
}

// The bytes of the first `characters` code points of valid UTF-8.
size_t bytes_of_characters(std::string_view text, size_t characters) {
  size_t seen = 0;
  for (size_t i = 0; i < text.size(); ++i)
    if (!is_continuation(text[i]) && seen++ == characters) return i;
  return text.size();
}

Result<void> check_text(const std::string& text, const fs::path& path) {
  if (text.empty())
    return fail(ErrorCode::kBadFile,
                fmt::format("{}: the file is empty; expected a text", path.string()));
  if (const size_t bad = first_invalid_utf8(text); bad != text.size())
    return fail(ErrorCode::kBadFile,
                fmt::format("{}: not UTF-8 at byte {} (0x{:02x}); convert the file to UTF-8",
                            path.string(), bad, static_cast<unsigned char>(text[bad])));
  return {};
}

// Folders in which shared/data may stand: each given one and those above it.
std::vector<fs::path> places_to_look() {
  std::vector<fs::path> places;
  std::error_code error;
  for (fs::path start :
       {fs::current_path(error), fs::read_symlink("/proc/self/exe", error).parent_path()})
    for (int level = 0; level < 6 && !start.empty(); ++level) {
      places.push_back(start);
      if (start == start.parent_path()) break;
      start = start.parent_path();
    }
  return places;
}

}  // namespace

Result<fs::path> find_data_folder(const fs::path& chosen) {
  std::error_code error;
  if (!chosen.empty()) {
    if (fs::is_directory(chosen, error)) return chosen;
    return fail(
        ErrorCode::kNotFound,
        fmt::format("{}: no such folder; the data option or SPEAR_DATA names the folder that holds "
                    "wikitext2/ and tasks/",
                    chosen.string()));
  }
  for (const fs::path& place : places_to_look())
    if (fs::path folder = place / "shared" / "data"; fs::is_directory(folder / "wikitext2", error))
      return folder;
  return fail(ErrorCode::kNotFound,
              "no data folder found: expected ../shared/data; set SPEAR_DATA to the folder that "
              "holds wikitext2/ "
              "and tasks/, or name files with --text");
}

std::string join_wikitext(std::string_view raw) {
  std::string joined;
  joined.reserve(raw.size() + raw.size() / 64);
  bool first = true;
  while (!raw.empty()) {
    const size_t newline = raw.find('\n');
    const size_t length = newline == std::string_view::npos ? raw.size() : newline + 1;
    const std::string_view line = raw.substr(0, length);
    raw.remove_prefix(length);
    if (!first) joined += "\n\n";
    first = false;
    if (line != " \n") joined += line;
  }
  return joined;
}

size_t first_invalid_utf8(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const auto lead = static_cast<unsigned char>(text[i]);
    size_t length = 1;
    uint32_t code = lead;
    uint32_t smallest = 0;
    if (lead >= 0x80) {
      if (lead >= 0xF0 && lead <= 0xF4) {
        length = 4, code = lead & 0x07u, smallest = 0x10000;
      } else if (lead >= 0xE0 && lead < 0xF0) {
        length = 3, code = lead & 0x0Fu, smallest = 0x800;
      } else if (lead >= 0xC2 && lead < 0xE0) {
        length = 2, code = lead & 0x1Fu, smallest = 0x80;
      } else {
        return i;
      }
    }
    if (length > text.size() - i) return i;
    for (size_t j = 1; j < length; ++j) {
      if (!is_continuation(text[i + j])) return i;
      code = (code << 6) | (static_cast<unsigned char>(text[i + j]) & 0x3Fu);
    }
    if (code < smallest || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return i;
    i += length;
  }
  return text.size();
}

bool is_known_text(std::string_view source) {
  return find_known(source) != nullptr;
}

Result<std::string> load_text(const TextSpec& spec, const fs::path& data_folder) {
  const KnownText* known = find_known(spec.source);
  const fs::path path = known != nullptr ? data_folder / known->file : fs::path(spec.source);
  auto text = read_text_file(path);
  if (!text) return text;
  if (auto checked = check_text(*text, path); !checked) return tl::unexpected(checked.error());
  if (known == nullptr) return text;
  if (known->wikitext && !spec.protocol.second_half) return join_wikitext(*text);
  if (known->characters > 0) text->resize(bytes_of_characters(*text, known->characters));
  return text;
}

std::string display_name(const TextSpec& spec) {
  const std::string stem =
      is_known_text(spec.source) ? spec.source : fs::path(spec.source).stem().string();
  return fmt::format("{}{}", stem, spec.protocol.suffix());
}

}  // namespace spear
