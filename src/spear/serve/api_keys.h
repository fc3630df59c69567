// The keys that clients may come with. Comparing takes the same time for every wrong key of a
// length. Immutable: safe from every thread.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace spear {

class ApiKeys {
 public:
  ApiKeys() = default;  // none: everybody may come in
  explicit ApiKeys(std::vector<std::string> keys);
  // A key a line; empty lines and those that begin with '#' are skipped. Throws Failure where the
  // file cannot be read, holds no key, or other users may read it.
  static ApiKeys from_file(const std::filesystem::path& path);

  [[nodiscard]] bool required() const { return !keys_.empty(); }
  // `authorization`: the header, "Bearer KEY".
  [[nodiscard]] bool allows(std::string_view authorization) const;

 private:
  std::vector<std::string> keys_;
};

}  // namespace spear
