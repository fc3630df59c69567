#include "spear/compensate/training_state.h"

#include <cstring>
#include <span>
#include <type_traits>

#include <fmt/format.h>

#include "spear/base/atomic_file.h"
#include "spear/base/hash.h"
#include "spear/base/log.h"
#include "spear/base/mapped_file.h"

namespace spear {
namespace {

constexpr char kMagic[8] = {'S', 'P', 'E', 'A', 'R', 'T', 'R', '1'};

// Appends plain values to a byte string.
class ByteWriter {
 public:
  template <class T>
  void put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    const auto* bytes = reinterpret_cast<const std::byte*>(&value);
    bytes_.insert(bytes_.end(), bytes, bytes + sizeof(T));
  }
  template <class T>
  void put_all(std::span<const T> values) {
    put(static_cast<uint64_t>(values.size()));
    const auto bytes = std::as_bytes(values);
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

// Takes them back; a request beyond the end leaves it failed.
class ByteTaker {
 public:
  explicit ByteTaker(std::span<const std::byte> bytes) : bytes_(bytes) {}
  template <class T>
  T take() {
    T value{};
    if (bytes_.size() < sizeof(T)) {
      whole_ = false;
      return value;
    }
    std::memcpy(&value, bytes_.data(), sizeof(T));
    bytes_ = bytes_.subspan(sizeof(T));
    return value;
  }
  template <class T>
  std::vector<T> take_all() {
    const auto count = take<uint64_t>();
    if (!whole_ || count > bytes_.size() / sizeof(T)) {
      whole_ = false;
      return {};
    }
    std::vector<T> out(count);
    std::memcpy(out.data(), bytes_.data(), count * sizeof(T));
    bytes_ = bytes_.subspan(count * sizeof(T));
    return out;
  }
  [[nodiscard]] bool whole() const { return whole_ && bytes_.empty(); }

 private:
  std::span<const std::byte> bytes_;
  bool whole_ = true;
};

}  // namespace

void save_training_state(const std::filesystem::path& path, const std::string& key,
                         const TrainingState& state) {
  ByteWriter body;
  body.put_all<char>(std::span(key.data(), key.size()));
  body.put_all<float>(state.values);
  body.put(state.optimizer.step);
  body.put_all<float>(state.optimizer.first);
  body.put_all<float>(state.optimizer.second);
  body.put(state.smoothed);
  body.put_all<float>(state.best_values);
  body.put(state.best);
  body.put(state.best_step);
  body.put(state.held_out_before);
  body.put_all<LossPoint>(state.curve);
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(kMagic)));
  const uint64_t checksum = xxh3(body.bytes());
  file.write(std::as_bytes(std::span(&checksum, 1)));
  file.write(body.bytes());
  file.commit();
}

std::optional<TrainingState> load_training_state(const std::filesystem::path& path,
                                                 const std::string& key, size_t parameters) {
  std::error_code error;
  if (path.empty() || !std::filesystem::exists(path, error)) return std::nullopt;
  const auto refuse = [&](std::string_view why) {
    log(LogLevel::kWarning,
        fmt::format("the checkpoint {} {}; training starts anew", path.string(), why));
    return std::nullopt;
  };
  const auto file = MappedFile::open(path);
  if (!file) return refuse("cannot be read");
  const auto bytes = file->bytes();
  if (bytes.size() < 16 || std::memcmp(bytes.data(), kMagic, sizeof(kMagic)) != 0)
    return refuse("is none");
  uint64_t checksum = 0;
  std::memcpy(&checksum, bytes.data() + 8, sizeof(checksum));
  if (checksum != xxh3(bytes.subspan(16))) return refuse("is damaged");
  ByteTaker body(bytes.subspan(16));
  const std::vector<char> stored_key = body.take_all<char>();
  if (std::string_view(stored_key.data(), stored_key.size()) != key)
    return refuse("belongs to another run");
  TrainingState state;
  state.values = body.take_all<float>();
  state.optimizer.step = body.take<int64_t>();
  state.optimizer.first = body.take_all<float>();
  state.optimizer.second = body.take_all<float>();
  state.smoothed = body.take<double>();
  state.best_values = body.take_all<float>();
  state.best = body.take<double>();
  state.best_step = body.take<int64_t>();
  state.held_out_before = body.take<double>();
  state.curve = body.take_all<LossPoint>();
  const bool fits = state.values.size() == parameters &&
                    state.optimizer.first.size() == parameters &&
                    state.optimizer.second.size() == parameters;
  if (!body.whole() || !fits) return refuse("is damaged");
  return state;
}

}  // namespace spear
