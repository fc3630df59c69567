#include "spear/formats/gguf.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include <fmt/format.h>

#include "spear/formats/gguf_value.h"

namespace spear {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr size_t kMaxKeyBytes = 65535;              // the format's own limit
constexpr size_t kMaxTensorNameBytes = 64;          // the format's own limit
constexpr uint64_t kMinEntryBytes = 8 + 1 + 4 + 1;  // key length, key, type, a byte
constexpr uint64_t kMinTensorBytes =
    8 + 1 + 4 + 8 + 4 + 8;  // name length, name, rank, extent, type, offset
constexpr uint32_t kMaxRank = 4;
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMaxAlignment = 65536;

struct RawTensor {
  GgufTensor tensor;
  uint64_t offset = 0;
  uint64_t size = 0;
};

// Reads one file from front to back; every function leaves an error sentence or a checked part.
class Parser {
 public:
  Parser(std::span<const std::byte> bytes, std::string_view source)
      : bytes_(bytes), source_(source), reader_(bytes), values_(reader_) {}

  Result<GgufIndex> parse() {
    if (auto ok = header(); !ok) return tl::unexpected(ok.error());
    for (uint64_t i = 0; i < entry_count_; ++i)
      if (auto ok = entry(i); !ok) return tl::unexpected(ok.error());
    if (auto ok = refuse_duplicate_keys(); !ok) return tl::unexpected(ok.error());
    if (auto ok = read_alignment(); !ok) return tl::unexpected(ok.error());
    for (uint64_t i = 0; i < tensor_count_; ++i)
      if (auto ok = tensor(i); !ok) return tl::unexpected(ok.error());
    if (auto ok = place_tensors(); !ok) return tl::unexpected(ok.error());
    return std::move(index_);
  }

 private:
  template <class... Args>
  tl::unexpected<Error> bad(fmt::format_string<Args...> format, Args&&... args) const {
    return fail(ErrorCode::kBadFile,
                fmt::format("{}: {}", source_, fmt::format(format, std::forward<Args>(args)...)));
  }

  Result<void> header() {
    const auto magic = reader_.read_bytes(kMagic.size());
    if (!magic) return bad("{} bytes are too few for a GGUF header", bytes_.size());
    if (as_text(*magic) == "FUGG")
      return bad("a big-endian GGUF file; spear reads little-endian ones");
    if (as_text(*magic) != kMagic) return bad("not a GGUF file: it does not begin with \"GGUF\"");
    const auto version = reader_.read<uint32_t>();
    const auto tensors = reader_.read<uint64_t>();
    const auto entries = reader_.read<uint64_t>();
    if (!version || !tensors || !entries)
      return bad("{} bytes are too few for a GGUF header of 24", bytes_.size());
    if (*version == 0x02000000u || *version == 0x03000000u)
      return bad("a big-endian GGUF file; spear reads little-endian ones");
    if (*version != 2 && *version != 3)
      return fail(ErrorCode::kUnsupported,
                  fmt::format("{}: GGUF version {}; versions 2 and 3 are read", source_, *version));
    if (*entries > reader_.remaining() / kMinEntryBytes)
      return bad("header: {} metadata entries do not fit a file of {} bytes", *entries,
                 bytes_.size());
    if (*tensors > reader_.remaining() / kMinTensorBytes)
      return bad("header: {} tensors do not fit a file of {} bytes", *tensors, bytes_.size());
    index_.version = *version;
    tensor_count_ = *tensors;
    entry_count_ = *entries;
    return {};
  }

  // A length and that many bytes of clean text, as keys and tensor names must be.
  Result<std::string_view> name(const std::string& what, size_t limit) {
    const size_t at = reader_.position();
    const auto length = reader_.read<uint64_t>();
    if (!length) return bad("{} at byte {}: the file ends", what, at);
    if (*length == 0) return bad("{} at byte {}: an empty name", what, at);
    if (*length > limit)
      return bad("{} at byte {}: a name of {} bytes, at most {} are allowed", what, at, *length,
                 limit);
    const auto text = reader_.read_bytes(*length);
    if (!text) return bad("{} at byte {}: a name of {} bytes runs past the end", what, at, *length);
    for (const std::byte b : *text)
      if (b < std::byte{0x20} || b >= std::byte{0x7f})
        return bad("{} at byte {}: the name holds byte 0x{:02x}, printable ASCII expected", what,
                   at, static_cast<int>(b));
    return as_text(*text);
  }

  Result<void> entry(uint64_t number) {
    const auto key = name(fmt::format("metadata key {}", number), kMaxKeyBytes);
    if (!key) return tl::unexpected(key.error());
    const size_t at = reader_.position();
    auto value = values_.read_value();
    if (!value) return bad("metadata \"{}\" at byte {}: {}", *key, at, value.error());
    index_.entries.push_back({*key, std::move(*value)});
    return {};
  }

  Result<void> refuse_duplicate_keys() const {
    std::vector<std::string_view> keys;
    for (const GgufEntry& e : index_.entries) keys.push_back(e.key);
    std::sort(keys.begin(), keys.end());
    const auto twin = std::adjacent_find(keys.begin(), keys.end());
    if (twin != keys.end()) return bad("metadata \"{}\" stands twice", *twin);
    return {};
  }

  Result<void> read_alignment() {
    for (const GgufEntry& e : index_.entries) {
      if (e.key != "general.alignment") continue;
      const auto value = e.value.as_integer();
      const bool power = value && *value > 0 && (*value & (*value - 1)) == 0;
      if (!power || *value < 8 || static_cast<uint64_t>(*value) > kMaxAlignment)
        return bad(
            "metadata \"general.alignment\": a power of two between 8 and {} expected, found {}",
            kMaxAlignment, value ? std::to_string(*value) : std::string(name_of(e.value.type)));
      alignment_ = static_cast<uint64_t>(*value);
    }
    return {};
  }

  Result<void> tensor(uint64_t number) {
    const auto found = name(fmt::format("tensor {}", number), kMaxTensorNameBytes);
    if (!found) return tl::unexpected(found.error());
    const auto rank = reader_.read<uint32_t>();
    if (!rank) return bad("tensor \"{}\": the file ends in its description", *found);
    if (*rank == 0 || *rank > kMaxRank)
      return bad("tensor \"{}\": {} dimensions, 1 to {} expected", *found, *rank, kMaxRank);
    int64_t extents[kMaxRank] = {1, 1, 1, 1};  // innermost first, as stored
    for (uint32_t axis = 0; axis < *rank; ++axis) {
      const auto extent = reader_.read<int64_t>();
      if (!extent) return bad("tensor \"{}\": the file ends in its description", *found);
      if (*extent <= 0)
        return bad("tensor \"{}\": dimension {} is {}, a positive number expected", *found, axis,
                   *extent);
      extents[axis] = *extent;
    }
    const auto type = reader_.read<uint32_t>();
    const auto offset = reader_.read<uint64_t>();
    if (!type || !offset) return bad("tensor \"{}\": the file ends in its description", *found);
    return add_tensor(*found, *rank, extents, *type, *offset);
  }

  Result<void> add_tensor(std::string_view tensor_name, uint32_t rank, const int64_t* extents,
                          uint32_t type, uint64_t offset) {
    const auto info = find_ggml_type(type);
    if (!info)
      return fail(ErrorCode::kUnsupported,
                  fmt::format("{}: tensor \"{}\" is stored as {}; spear reads {}", source_,
                              tensor_name, name_of_ggml_type(type), readable_ggml_types()));
    if (extents[0] % info->block_values != 0)
      return bad("tensor \"{}\": rows of {} values are not a multiple of {}'s block of {}",
                 tensor_name, extents[0], info->name, info->block_values);
    std::optional<int64_t> size =
        checked_product(extents[0] / info->block_values, info->block_bytes);
    std::optional<int64_t> count = extents[0];
    for (uint32_t axis = 1; axis < rank; ++axis) {
      size = size ? checked_product(*size, extents[axis]) : std::nullopt;
      count = count ? checked_product(*count, extents[axis]) : std::nullopt;
    }
    if (!size || !count) return bad("tensor \"{}\": its size overflows 63 bits", tensor_name);
    if (offset % alignment_ != 0)
      return bad("tensor \"{}\": offset {} is not a multiple of the alignment {}", tensor_name,
                 offset, alignment_);
    RawTensor raw;
    raw.tensor = {tensor_name, info->type, row_major(extents, rank), {}};
    raw.offset = offset;
    raw.size = static_cast<uint64_t>(*size);
    raw_.push_back(raw);
    return {};
  }

  static Shape row_major(const int64_t* extents, uint32_t rank) {
    switch (rank) {
      case 1:
        return {extents[0]};
      case 2:
        return {extents[1], extents[0]};
      case 3:
        return {extents[2], extents[1], extents[0]};
      default:
        return {extents[3], extents[2], extents[1], extents[0]};
    }
  }

  // Gives each tensor its bytes: inside the file, none over another, no name twice.
  Result<void> place_tensors() {
    if (raw_.empty()) return {};
    const uint64_t head = reader_.position();
    const uint64_t data_start = (head + alignment_ - 1) / alignment_ * alignment_;
    const uint64_t data_bytes = data_start <= bytes_.size() ? bytes_.size() - data_start : 0;
    for (RawTensor& raw : raw_) {
      if (raw.offset > data_bytes || raw.size > data_bytes - raw.offset)
        return bad(
            "tensor \"{}\": {} bytes at offset {} run past the end of the data ({} bytes): "
            "the file is cut or damaged",
            raw.tensor.name, raw.size, raw.offset, data_bytes);
      raw.tensor.bytes = bytes_.subspan(static_cast<size_t>(data_start + raw.offset),
                                        static_cast<size_t>(raw.size));
    }
    if (auto ok = refuse_overlaps(); !ok) return ok;
    for (const RawTensor& raw : raw_) index_.tensors.push_back(raw.tensor);
    return refuse_duplicate_tensors();
  }

  Result<void> refuse_overlaps() const {
    std::vector<const RawTensor*> order;
    for (const RawTensor& raw : raw_) order.push_back(&raw);
    std::sort(order.begin(), order.end(), [](const RawTensor* a, const RawTensor* b) {
      return std::pair(a->offset, a->size) < std::pair(b->offset, b->size);
    });
    for (size_t i = 1; i < order.size(); ++i)
      if (order[i - 1]->offset + order[i - 1]->size > order[i]->offset)
        return bad("tensors \"{}\" and \"{}\" overlap", order[i - 1]->tensor.name,
                   order[i]->tensor.name);
    return {};
  }

  Result<void> refuse_duplicate_tensors() const {
    std::vector<std::string_view> names;
    for (const GgufTensor& t : index_.tensors) names.push_back(t.name);
    std::sort(names.begin(), names.end());
    const auto twin = std::adjacent_find(names.begin(), names.end());
    if (twin != names.end()) return bad("tensor \"{}\" stands twice", *twin);
    return {};
  }

  std::span<const std::byte> bytes_;
  std::string source_;
  ByteReader reader_;
  GgufValueReader values_;
  uint64_t tensor_count_ = 0;
  uint64_t entry_count_ = 0;
  uint64_t alignment_ = kDefaultAlignment;
  std::vector<RawTensor> raw_;
  GgufIndex index_;
};

template <class Items, class NameOf>
std::vector<uint32_t> sorted_positions(const Items& items, NameOf name_of_item) {
  std::vector<uint32_t> order(items.size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return name_of_item(items[a]) < name_of_item(items[b]);
  });
  return order;
}

template <class Items, class NameOf>
auto find_sorted(const Items& items, const std::vector<uint32_t>& order, std::string_view name,
                 NameOf name_of_item) -> decltype(items.data()) {
  const auto at = std::lower_bound(order.begin(), order.end(), name,
                                   [&](uint32_t position, std::string_view wanted) {
                                     return name_of_item(items[position]) < wanted;
                                   });
  if (at == order.end() || name_of_item(items[*at]) != name) return nullptr;
  return &items[*at];
}

constexpr auto kKeyOf = [](const GgufEntry& e) { return e.key; };
constexpr auto kNameOf = [](const GgufTensor& t) { return t.name; };

}  // namespace

Result<GgufIndex> parse_gguf(std::span<const std::byte> bytes, std::string_view source) {
  return Parser(bytes, source).parse();
}

Result<GgufFile> GgufFile::open(const std::filesystem::path& path) {
  auto mapped = MappedFile::open(path);
  if (!mapped) return tl::unexpected(mapped.error());
  GgufFile out;
  out.file_ = std::move(*mapped);
  auto index = parse_gguf(out.file_.bytes(), path.string());
  if (!index) return tl::unexpected(index.error());
  out.index_ = std::move(*index);
  out.keys_by_name_ = sorted_positions(out.index_.entries, kKeyOf);
  out.tensors_by_name_ = sorted_positions(out.index_.tensors, kNameOf);
  return out;
}

const GgufValue* GgufFile::find(std::string_view key) const {
  const GgufEntry* entry = find_sorted(index_.entries, keys_by_name_, key, kKeyOf);
  return entry == nullptr ? nullptr : &entry->value;
}

const GgufTensor* GgufFile::find_tensor(std::string_view name) const {
  return find_sorted(index_.tensors, tensors_by_name_, name, kNameOf);
}

namespace {

template <class T>
Result<T> wanted(const GgufFile& file, std::string_view key, std::string_view kind,
                 std::optional<T> (GgufValue::*as)() const) {
  const GgufValue* value = file.find(key);
  const std::string path = file.file().path().string();
  if (value == nullptr)
    return fail(ErrorCode::kBadFile, fmt::format("{}: metadata \"{}\" is missing", path, key));
  const std::optional<T> out = (value->*as)();
  if (!out)
    return fail(ErrorCode::kBadFile, fmt::format("{}: metadata \"{}\": {} expected, found {}", path,
                                                 key, kind, name_of(value->type)));
  return *out;
}

}  // namespace

Result<int64_t> GgufFile::integer(std::string_view key) const {
  return wanted<int64_t>(*this, key, "an integer", &GgufValue::as_integer);
}

Result<double> GgufFile::real(std::string_view key) const {
  return wanted<double>(*this, key, "a number", &GgufValue::as_real);
}

Result<std::string_view> GgufFile::text(std::string_view key) const {
  return wanted<std::string_view>(*this, key, "a string", &GgufValue::as_text);
}

}  // namespace spear
