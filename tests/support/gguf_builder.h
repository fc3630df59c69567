// Builds GGUF files byte by byte for tests, right or wrong ones alike: nothing it is told is
// checked.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace spear::test {

class GgufBuilder {
 public:
  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t alignment = 32;
  std::string data;  // the tensors' bytes
  int64_t extra_tensors = 0;
  int64_t extra_entries = 0;

  template <class T>
  static std::string raw(T value) {
    std::string out(sizeof value, '\0');
    std::memcpy(out.data(), &value, sizeof value);
    return out;
  }
  static std::string text(std::string_view value) {
    return raw<uint64_t>(value.size()) + std::string(value);
  }

  // `type` and `payload` as the file holds them.
  GgufBuilder& entry(std::string_view key, uint32_t type, std::string_view payload) {
    entries_ += text(key) + raw(type) + std::string(payload);
    ++entry_count_;
    return *this;
  }
  GgufBuilder& add_u32(std::string_view key, uint32_t value) { return entry(key, 4, raw(value)); }
  GgufBuilder& add_f32(std::string_view key, float value) { return entry(key, 6, raw(value)); }
  GgufBuilder& add_bool(std::string_view key, bool value) {
    return entry(key, 7, raw<uint8_t>(value ? 1 : 0));
  }
  GgufBuilder& add_text(std::string_view key, std::string_view value) {
    return entry(key, 8, text(value));
  }
  GgufBuilder& add_texts(std::string_view key, const std::vector<std::string>& values) {
    std::string payload = raw<uint32_t>(8) + raw<uint64_t>(values.size());
    for (const std::string& value : values) payload += text(value);
    return entry(key, 9, payload);
  }
  template <class T>
  GgufBuilder& add_numbers(std::string_view key, uint32_t type, const std::vector<T>& values) {
    std::string payload = raw(type) + raw<uint64_t>(values.size());
    for (const T value : values) payload += raw(value);
    return entry(key, 9, payload);
  }

  // The description alone; extents innermost first, as the file holds them.
  GgufBuilder& tensor_at(std::string_view name, const std::vector<int64_t>& extents, uint32_t type,
                         uint64_t offset) {
    tensors_ += text(name) + raw(static_cast<uint32_t>(extents.size()));
    for (const int64_t extent : extents) tensors_ += raw(extent);
    tensors_ += raw(type) + raw(offset);
    ++tensor_count_;
    return *this;
  }
  // A tensor whose bytes go behind the earlier ones.
  GgufBuilder& tensor(std::string_view name, const std::vector<int64_t>& extents, uint32_t type,
                      std::string_view bytes) {
    data.resize((data.size() + alignment - 1) / alignment * alignment);
    tensor_at(name, extents, type, data.size());
    data += bytes;
    return *this;
  }
  GgufBuilder& f32_tensor(std::string_view name, const std::vector<int64_t>& extents,
                          const std::vector<float>& values) {
    return tensor(name, extents, 0,
                  {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)});
  }

  [[nodiscard]] std::string build() const {
    std::string out = magic + raw(version) + raw(tensor_count_ + extra_tensors) +
                      raw(entry_count_ + extra_entries) + entries_ + tensors_;
    if (tensor_count_ > 0) out.resize((out.size() + alignment - 1) / alignment * alignment);
    return out + data;
  }

 private:
  std::string entries_;
  std::string tensors_;
  int64_t entry_count_ = 0;
  int64_t tensor_count_ = 0;
};

}  // namespace spear::test
