// A compressed model from its file: every tensor's type, shape and values against the
// configuration.
#include <cmath>
#include <cstring>
#include <optional>
#include <span>
#include <unordered_set>

#include <fmt/format.h>

#include "spear/model/model_file.h"
#include "spear/model/model_file_layout.h"

namespace spear {

using namespace model_file_layout;

namespace {

constexpr int32_t kMostGroups = 1 << 20;
constexpr int32_t kMostRank = 1 << 16;

// Reads tensors of one artifact; the first thing wrong is kept and every later read is empty.
class Reader {
 public:
  Reader(const Artifact& artifact, std::string source)
      : artifact_(artifact), source_(std::move(source)) {}

  [[nodiscard]] const std::optional<Error>& error() const { return error_; }
  [[nodiscard]] const ArtifactTensor* find(const std::string& name) const {
    return artifact_.find(name);
  }

  void refuse(const std::string& what) {
    if (!error_) error_ = Error{ErrorCode::kBadFile, fmt::format("{}: {}", source_, what)};
  }

  HostBuffer borrow(const std::string& name, std::string_view type, const Shape& shape) {
    return HostBuffer::borrowed(take(name, type, shape));
  }

  // F16 or F32 values that must be finite; empty when the tensor is not there.
  HostTensor optional_reals(const std::string& name, int64_t count) {
    const ArtifactTensor* tensor = find(name);
    if (tensor == nullptr) return {};
    if (tensor->dtype != "f16" && tensor->dtype != "f32") {
      refuse(fmt::format("tensor {}: type {}, expected f16 or f32", name, tensor->dtype));
      return {};
    }
    const std::span<const std::byte> bytes = take(name, tensor->dtype, {count});
    if (bytes.empty()) return {};
    HostTensor out({count}, tensor->dtype == "f16" ? DType::kF16 : DType::kF32);
    std::memcpy(out.mutable_view().data, bytes.data(), bytes.size());
    for (int64_t i = 0; i < count; ++i) {
      const auto at = static_cast<size_t>(i);
      const float value =
          out.dtype() == DType::kF16 ? float_from_f16(out.as<uint16_t>()[at]) : out.as<float>()[at];
      if (!std::isfinite(value))
        refuse(fmt::format("tensor {}: element {} is not finite", name, i));
    }
    return out;
  }

  HostTensor reals(const std::string& name, int64_t count) {
    if (find(name) == nullptr) refuse(fmt::format("tensor {} is missing", name));
    return optional_reals(name, count);
  }

  // F16 scales and the like: borrowed, every value finite.
  HostBuffer finite_f16(const std::string& name, const Shape& shape) {
    HostBuffer buffer = borrow(name, "f16", shape);
    const auto* values = std::as_const(buffer).as<uint16_t>();
    for (size_t i = 0; i < buffer.bytes() / 2; ++i)
      if ((values[i] & 0x7c00u) == 0x7c00u) {
        refuse(fmt::format("tensor {}: element {} is not finite", name, i));
        break;
      }
    return buffer;
  }

  std::span<const std::byte> take(const std::string& name, std::string_view type,
                                  const Shape& shape) {
    if (error_) return {};
    taken_.insert(name);
    const Result<std::span<const std::byte>> bytes = artifact_.tensor(name, type, shape);
    if (!bytes) {
      error_ = bytes.error();
      return {};
    }
    return *bytes;
  }

  // A tensor of the model's own sections that nothing asked for would change the model if it were
  // understood: a compensator of a layer that is not there, a half of one. Refused, not skipped.
  void refuse_leftovers() {
    for (const ArtifactTensor& tensor : artifact_.tensors()) {
      const bool ours = tensor.section == "ends" || tensor.section.starts_with("layers.");
      if (ours && !taken_.contains(tensor.name))
        refuse(fmt::format("tensor {} in section {} belongs to no part of this model", tensor.name,
                           tensor.section));
    }
  }

 private:
  const Artifact& artifact_;
  std::string source_;
  std::unordered_set<std::string> taken_;
  std::optional<Error> error_;
};

QuantizedMatrix read_matrix(Reader& in, const std::string& name, int64_t n, int64_t k) {
  QuantizedMatrix m;
  m.n = static_cast<int32_t>(n);
  m.k = static_cast<int32_t>(k);
  const ArtifactTensor* codes = in.find(name + ".codes");
  if (codes == nullptr) {
    in.refuse(fmt::format("tensor {}.codes is missing", name));
    return m;
  }
  m.bits = 0;
  for (const int32_t bits : {2, 3, 4, 6, 8, 16})
    if (codes->dtype == code_type(bits)) m.bits = bits;
  if (m.bits == 0) {
    in.refuse(fmt::format("tensor {}.codes: type {}, expected u2, u3, u4, u6, u8 or bf16", name,
                          codes->dtype));
    return m;
  }
  m.codes = in.borrow(name + ".codes", codes->dtype, {n, k});
  m.group = m.k;
  m.zero_kind = ZeroKind::kNone;
  if (m.bits == 16) return m;
  const ArtifactTensor* scales = in.find(name + ".scales");
  const int64_t groups = scales != nullptr && scales->shape.rank() == 2 ? scales->shape[1] : 1;
  if (groups < 1 || groups > kMostGroups || k % groups != 0) {
    in.refuse(fmt::format("tensor {}.scales: {} groups do not divide {} inputs", name, groups, k));
    return m;
  }
  m.group = static_cast<int32_t>(k / groups);
  m.scales = in.finite_f16(name + ".scales", {n, groups});
  const ArtifactTensor* zeros = in.find(name + ".zeros");
  if (zeros == nullptr) return m;
  if (zeros->dtype == "u4") {
    m.zero_kind = ZeroKind::kU4;
    m.zeros = in.borrow(name + ".zeros", "u4", {n * groups});
  } else if (zeros->dtype == "u8") {
    m.zero_kind = ZeroKind::kU8;
    m.zeros = in.borrow(name + ".zeros", "u8", {n, groups});
  } else {
    m.zero_kind = ZeroKind::kF16;
    m.zeros = in.finite_f16(name + ".zeros", {n, groups});
  }
  return m;
}

std::optional<ErrorCompensator> read_compensator(Reader& in, const std::string& name, int32_t n,
                                                 int32_t k) {
  const ArtifactTensor* a = in.find(name + ".ec.a");
  if (a == nullptr) return std::nullopt;
  ErrorCompensator ec;
  ec.n = n;
  ec.k = k;
  ec.factor_bits = a->dtype == "i8" ? 8 : a->dtype == "i4" ? 4 : 16;
  const int64_t rank = a->shape.rank() == 2 ? a->shape[0] : 0;
  if (rank < 1 || rank > kMostRank || rank > std::min(n, k)) {
    in.refuse(fmt::format("tensor {}.ec.a: rank {}, expected 1 to {}", name, rank, std::min(n, k)));
    return std::nullopt;
  }
  ec.rank = static_cast<int32_t>(rank);
  const char* type = factor_type(ec.factor_bits);
  ec.a = in.borrow(name + ".ec.a", type, {rank, k});
  ec.b = in.borrow(name + ".ec.b", type, {rank, n});
  if (ec.factor_bits != 16) {
    ec.a_scales = in.finite_f16(name + ".ec.a_scales", {rank});
    ec.b_scales = in.finite_f16(name + ".ec.b_scales", {rank});
  }
  const ArtifactTensor* w1 = in.find(name + ".ec.gate.w1");
  if (w1 == nullptr) return ec;
  const int64_t hidden = w1->shape.rank() == 2 ? w1->shape[0] : 0;
  if (hidden < 1 || hidden > kMostRank) {
    in.refuse(fmt::format("tensor {}.ec.gate.w1: {} hidden units, expected 1 to {}", name, hidden,
                          kMostRank));
    return std::nullopt;
  }
  ec.gate_hidden = static_cast<int32_t>(hidden);
  const HostBuffer parts[] = {in.finite_f16(name + ".ec.gate.w1", {hidden, rank}),
                              in.finite_f16(name + ".ec.gate.b1", {hidden}),
                              in.finite_f16(name + ".ec.gate.w2", {rank, hidden}),
                              in.finite_f16(name + ".ec.gate.b2", {rank})};
  if (in.error()) return std::nullopt;
  ec.gate = HostBuffer(static_cast<size_t>(2 * hidden * rank + hidden + rank) * 2);
  auto* at = ec.gate.as<std::byte>();
  for (const HostBuffer& part : parts) {
    std::memcpy(at, part.data(), part.bytes());
    at += part.bytes();
  }
  return ec;
}

QuantizedLayer read_layer(Reader& in, const ModelConfig& config, int32_t index) {
  QuantizedLayer layer;
  const std::string prefix = fmt::format("layers.{}", index);
  layer.input_norm = in.optional_reals(prefix + ".input_layernorm", config.hidden_size);
  layer.post_attention_norm =
      in.optional_reals(prefix + ".post_attention_layernorm", config.hidden_size);
  if (config.qk_norm) {
    layer.q_norm = in.reals(prefix + ".self_attn.q_norm", config.head_dim);
    layer.k_norm = in.reals(prefix + ".self_attn.k_norm", config.head_dim);
  }
  for (const Module module : kModules) {
    QuantizedLinear& linear = layer.linear(module);
    const std::string name = name_of(ModuleId{index, module});
    linear.weight =
        read_matrix(in, name, out_features(config, module), in_features(config, module));
    linear.bias = in.optional_reals(name + ".bias", linear.weight.n);
    linear.compensator = read_compensator(in, name, linear.weight.n, linear.weight.k);
  }
  return layer;
}

std::vector<float> read_signs(Reader& in, const std::string& name, int64_t n) {
  std::vector<float> out;
  for (const std::byte byte : in.take(name, "i8", {n})) {
    const auto sign = static_cast<int8_t>(byte);
    if (sign != 1 && sign != -1)
      in.refuse(fmt::format("tensor {}: a sign is {}, expected 1 or -1", name, sign));
    out.push_back(static_cast<float>(sign));
  }
  return out;
}

std::optional<ResidualRotation> read_rotation(Reader& in, const ModelConfig& config) {
  const ArtifactTensor* factor = in.find("rotation.factor");
  if (factor == nullptr) return std::nullopt;
  ResidualRotation rotation;
  rotation.p = factor->shape.rank() == 2 ? factor->shape[0] : 0;
  if (rotation.p < 1 || config.hidden_size % rotation.p != 0) {
    in.refuse(fmt::format(
        "tensor rotation.factor: shape {}, expected [p, p] with p dividing hidden_size {}",
        factor->shape.text(), config.hidden_size));
    return std::nullopt;
  }
  rotation.h = config.hidden_size / rotation.p;
  if ((rotation.h & (rotation.h - 1)) != 0) {
    in.refuse(fmt::format("tensor rotation.factor: {} / {} = {} is not a power of two",
                          config.hidden_size, rotation.p, rotation.h));
    return std::nullopt;
  }
  const std::span<const std::byte> values =
      in.take("rotation.factor", "f32", {rotation.p, rotation.p});
  if (in.error()) return std::nullopt;
  rotation.factor.resize(values.size() / sizeof(float));
  std::memcpy(rotation.factor.data(), values.data(), values.size());
  for (const float value : rotation.factor)
    if (!std::isfinite(value)) in.refuse("tensor rotation.factor: an element is not finite");
  rotation.signs_in = read_signs(in, "rotation.signs_in", config.hidden_size);
  rotation.signs_out = read_signs(in, "rotation.signs_out", config.hidden_size);
  return rotation;
}

}  // namespace

Result<ModelFile> load_model(const std::filesystem::path& path, FileChecks checks) {
  Result<Artifact> opened = Artifact::open(path);
  if (!opened) return tl::unexpected(opened.error());
  if (checks == FileChecks::kEveryByte)
    if (auto whole = opened->verify(); !whole) return tl::unexpected(whole.error());
  ModelFile file;
  file.artifact = std::make_shared<const Artifact>(std::move(*opened));
  const Artifact& artifact = *file.artifact;
  const Result<std::string_view> config_text = artifact.text("config");
  if (!config_text) return tl::unexpected(config_text.error());
  Result<ModelConfig> config =
      config_from_json_text(*config_text, path.string() + ": section config");
  if (!config) return tl::unexpected(config.error());
  for (const TextSection& section : kTextSections)
    if (artifact.has(section.name))
      file.texts.*section.text = std::string(value_or_throw(artifact.text(section.name)));

  Reader in(artifact, path.string());
  QuantizedModel& model = file.model;
  model.config = std::move(*config);
  const ModelConfig& c = model.config;
  model.embedding = read_matrix(in, "embedding", c.vocab_size, c.hidden_size);
  if (!c.tie_word_embeddings) model.head = read_matrix(in, "head", c.vocab_size, c.hidden_size);
  model.final_norm = in.reals("final_norm", c.hidden_size);
  model.rotation = read_rotation(in, c);
  for (int32_t l = 0; l < static_cast<int32_t>(c.num_hidden_layers) && !in.error(); ++l)
    model.layers.push_back(read_layer(in, c, l));
  in.refuse_leftovers();
  if (in.error()) return tl::unexpected(*in.error());
  return file;
}

}  // namespace spear
