#include "spear/formats/safetensors.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "spear/base/atomic_file.h"
#include "spear/base/json.h"
#include "spear/formats/byte_reader.h"
#include "spear/formats/header_checks.h"

namespace spear {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxHeaderBytes = uint64_t{8} << 20;  // some 60,000 tensors
constexpr size_t kMaxIndexBytes = size_t{8} << 20;
constexpr int kMaxDepth = 8;
constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";

std::optional<GgmlType> type_of(std::string_view dtype) {
  if (dtype == "F32") return GgmlType::kF32;
  if (dtype == "F16") return GgmlType::kF16;
  if (dtype == "BF16") return GgmlType::kBF16;
  return std::nullopt;
}

// A whole number that is not negative and fits 63 bits.
std::optional<int64_t> natural(const SortedJson& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    if (number <= static_cast<uint64_t>(INT64_MAX)) return static_cast<int64_t>(number);
  }
  return std::nullopt;
}

class Header {
 public:
  Header(std::span<const std::byte> bytes, std::string_view source)
      : bytes_(bytes), source_(source) {}

  Result<std::vector<SafetensorsTensor>> parse() {
    ByteReader reader(bytes_);
    const auto length = reader.read<uint64_t>();
    if (!length) return bad("{} bytes are too few for a safetensors header", bytes_.size());
    if (*length > kMaxHeaderBytes)
      return bad("a header of {} bytes; at most {} are read", *length, kMaxHeaderBytes);
    const auto text = reader.read_bytes(*length);
    if (!text)
      return bad("a header of {} bytes in a file of {}: not a safetensors file, or cut", *length,
                 bytes_.size());
    if (text->empty() || (*text)[0] != std::byte{'{'})
      return bad("the header does not begin with '{{': not a safetensors file");
    data_ = bytes_.subspan(reader.position());
    const auto json = parse_sorted_json(as_text(*text), source_, kMaxDepth);
    if (!json) return tl::unexpected(json.error());
    if (!json->is_object()) return bad("the header is not a JSON object");
    for (const auto& [name, value] : json->items())
      if (name != "__metadata__")
        if (auto ok = add(name, value); !ok) return tl::unexpected(ok.error());
    if (auto ok = check_places(); !ok) return tl::unexpected(ok.error());
    return std::move(tensors_);
  }

 private:
  template <class... Args>
  tl::unexpected<Error> bad(fmt::format_string<Args...> format, Args&&... args) const {
    return fail(ErrorCode::kBadFile,
                fmt::format("{}: {}", source_, fmt::format(format, std::forward<Args>(args)...)));
  }

  Result<void> add(const std::string& name, const SortedJson& value) {
    if (!is_visible_name(name, kMaxTensorName))
      return bad("a tensor name of {} bytes that is not 1 to {} printable ASCII characters",
                 name.size(), kMaxTensorName);
    const auto dtype = value.is_object() ? value.find("dtype") : value.end();
    if (!value.is_object() || value.size() != 3 || !value.contains("shape") ||
        !value.contains("data_offsets") || dtype == value.end() || !dtype->is_string())
      return bad("tensor \"{}\": \"dtype\", \"shape\" and \"data_offsets\" expected", name);
    const auto type = type_of(dtype->get_ref<const std::string&>());
    if (!type)
      return fail(
          ErrorCode::kUnsupported,
          fmt::format("{}: tensor \"{}\" is stored as {:.16}; spear reads F32, F16 and BF16",
                      source_, name, dtype->get_ref<const std::string&>()));
    const auto shape = read_shape(name, value.at("shape"));
    if (!shape) return tl::unexpected(shape.error());
    std::optional<int64_t> size = info_of(*type).block_bytes;
    for (int axis = 0; axis < shape->rank(); ++axis)
      size = size ? checked_product(*size, (*shape)[axis]) : std::nullopt;
    if (!size) return bad("tensor \"{}\": its size overflows 63 bits", name);
    return place(name, *type, *shape, *size, value.at("data_offsets"));
  }

  Result<Shape> read_shape(const std::string& name, const SortedJson& value) const {
    if (!value.is_array() || value.empty() || value.size() > Shape::kMaxRank)
      return bad("tensor \"{}\": a shape of 1 to {} numbers expected", name, Shape::kMaxRank);
    int64_t e[Shape::kMaxRank] = {};
    for (size_t axis = 0; axis < value.size(); ++axis) {
      const auto extent = natural(value[axis]);
      if (!extent || *extent == 0)
        return bad("tensor \"{}\": dimension {} is {:.40}, a positive whole number expected", name,
                   axis, value[axis].dump());
      e[axis] = *extent;
    }
    return shape_of(std::span(e, value.size()));
  }

  Result<void> place(const std::string& name, GgmlType type, const Shape& shape, int64_t size,
                     const SortedJson& offsets) {
    const bool pair = offsets.is_array() && offsets.size() == 2;
    const auto begin = pair ? natural(offsets[0]) : std::nullopt;
    const auto end = pair ? natural(offsets[1]) : std::nullopt;
    if (!begin || !end || *begin > *end)
      return bad("tensor \"{}\": \"data_offsets\" are not a begin and an end", name);
    if (*end > static_cast<int64_t>(data_.size()))
      return bad("tensor \"{}\": ends at byte {} of {} bytes of data: the file is cut or damaged",
                 name, *end, data_.size());
    if (*end - *begin != size)
      return bad("tensor \"{}\": {} bytes for shape {} of {}, {} expected", name, *end - *begin,
                 shape.text(), info_of(type).name, size);
    tensors_.push_back(
        {name, type, shape, data_.subspan(static_cast<size_t>(*begin), static_cast<size_t>(size))});
    return {};
  }

  // The tensors fill the data from its first to its last byte, one behind the other.
  Result<void> check_places() {
    std::sort(tensors_.begin(), tensors_.end(),
              [](const auto& a, const auto& b) { return a.bytes.data() < b.bytes.data(); });
    const std::byte* next = data_.data();
    for (const SafetensorsTensor& tensor : tensors_) {
      if (tensor.bytes.data() != next)
        return bad("tensor \"{}\": {} before it at byte {} of the data", tensor.name,
                   tensor.bytes.data() < next ? "overlaps the tensor" : "there is a hole",
                   std::min(tensor.bytes.data(), next) - data_.data());
      next = tensor.bytes.data() + tensor.bytes.size();
    }
    const auto used = static_cast<size_t>(next - data_.data());
    if (used != data_.size())
      return bad("{} bytes behind the last tensor belong to none", data_.size() - used);
    return {};
  }

  std::span<const std::byte> bytes_;
  std::span<const std::byte> data_;
  std::string source_;
  std::vector<SafetensorsTensor> tensors_;
};

// A name that stays in its folder on every system.
bool is_plain_file_name(std::string_view name) {
  return is_visible_name(name, 255) && name.front() != '.' &&
         name.find_first_of("/\\:") == std::string_view::npos;
}

bool is_inside(const fs::path& path, const fs::path& folder) {
  const auto [a, b] = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  return a == folder.end() && b != path.end();
}

// Opens the shards of an index and checks that both agree on who holds what.
Result<std::vector<std::unique_ptr<SafetensorsFile>>> open_shards(
    const fs::path& folder, const std::vector<SafetensorsIndexEntry>& entries,
    const std::string& source) {
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto& [tensor, shard] : entries) shards[shard].push_back(tensor);
  std::vector<std::unique_ptr<SafetensorsFile>> out;
  for (auto& [name, promised] : shards) {
    const auto path = file_in_folder(folder, name);
    if (!path) {
      if (path.error().code != ErrorCode::kNotFound) return tl::unexpected(path.error());
      return fail(ErrorCode::kNotFound,
                  fmt::format("{}: names the shard {}, which is not there", source, name));
    }
    auto file = SafetensorsFile::open(*path);
    if (!file) return tl::unexpected(file.error());
    std::vector<std::string> held;
    for (const SafetensorsTensor& tensor : file->tensors()) held.push_back(tensor.name);
    std::sort(held.begin(), held.end());
    std::sort(promised.begin(), promised.end());
    const auto [a, b] = std::mismatch(held.begin(), held.end(), promised.begin(), promised.end());
    if (b != promised.end() && (a == held.end() || *b < *a))
      return fail(ErrorCode::kBadFile,
                  fmt::format("{}: tensor \"{}\" is not in the shard {}", source, *b, name));
    if (a != held.end())
      return fail(ErrorCode::kBadFile,
                  fmt::format("{}: does not name tensor \"{}\" of the shard {}", source, *a, name));
    out.push_back(std::make_unique<SafetensorsFile>(std::move(*file)));
  }
  return out;
}

}  // namespace

Result<std::vector<SafetensorsTensor>> parse_safetensors(std::span<const std::byte> bytes,
                                                         std::string_view source) {
  return Header(bytes, source).parse();
}

Result<std::vector<SafetensorsIndexEntry>> parse_safetensors_index(std::string_view text,
                                                                   std::string_view source) {
  const auto json = parse_sorted_json(text, source, kMaxDepth);
  if (!json) return tl::unexpected(json.error());
  const auto map = json->is_object() ? json->find("weight_map") : json->end();
  if (!json->is_object() || map == json->end() || !map->is_object() || map->empty())
    return fail(ErrorCode::kBadFile,
                fmt::format("{}: an object \"weight_map\" of tensors and shards expected", source));
  std::vector<SafetensorsIndexEntry> out;
  for (const auto& [tensor, shard] : map->items()) {
    if (!shard.is_string() || !is_plain_file_name(shard.get_ref<const std::string&>()))
      return fail(
          ErrorCode::kBadFile,
          fmt::format("{}: tensor {:.80}: shard {:.80} is not the plain name of a file in the "
                      "same folder",
                      source, SortedJson(tensor).dump(), shard.dump()));
    out.push_back({tensor, shard.get<std::string>()});
  }
  return out;
}

Result<SafetensorsFile> SafetensorsFile::open(const fs::path& path) {
  auto mapped = MappedFile::open(path);
  if (!mapped) return tl::unexpected(mapped.error());
  SafetensorsFile out;
  out.file_ = std::move(*mapped);
  auto tensors = parse_safetensors(out.file_.bytes(), path.string());
  if (!tensors) return tl::unexpected(tensors.error());
  out.tensors_ = std::move(*tensors);
  return out;
}

Result<fs::path> file_in_folder(const fs::path& folder, std::string_view name) {
  const fs::path path = folder / name;
  std::error_code error;
  if (!fs::exists(fs::symlink_status(path, error)))
    return fail(ErrorCode::kNotFound, fmt::format("{}: no such file", path.string()));
  const fs::path real = fs::canonical(path, error);
  if (error)
    return fail(ErrorCode::kNotFound, fmt::format("{}: a link that leads nowhere", path.string()));
  const fs::path home = fs::canonical(folder, error);
  if (is_inside(real, home)) return path;
  const bool snapshot = home.parent_path().filename() == "snapshots";
  if (snapshot && is_inside(real, home.parent_path().parent_path() / "blobs")) return path;
  return fail(
      ErrorCode::kBadFile,
      fmt::format("{}: a link that leads out of the model's folder, to {}; put the file itself "
                  "there",
                  path.string(), real.string()));
}

Result<std::vector<std::unique_ptr<SafetensorsFile>>> open_safetensors_folder(
    const fs::path& folder) {
  if (const auto index = file_in_folder(folder, kIndexFile)) {
    const auto text = read_text_file(*index, kMaxIndexBytes);
    if (!text) return tl::unexpected(text.error());
    const auto entries = parse_safetensors_index(*text, index->string());
    if (!entries) return tl::unexpected(entries.error());
    return open_shards(folder, *entries, index->string());
  } else if (index.error().code != ErrorCode::kNotFound) {
    return tl::unexpected(index.error());
  }
  const auto path = file_in_folder(folder, kSingleFile);
  if (!path) return tl::unexpected(path.error());
  auto file = SafetensorsFile::open(*path);
  if (!file) return tl::unexpected(file.error());
  std::vector<std::unique_ptr<SafetensorsFile>> out;
  out.push_back(std::make_unique<SafetensorsFile>(std::move(*file)));
  return out;
}

}  // namespace spear
