#include "spear/compensate/trained_parameters.h"

#include <cmath>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include <fmt/format.h>

#include "spear/base/hash.h"
#include "spear/base/json.h"
#include "spear/formats/artifact.h"

namespace spear {
namespace {

constexpr std::string_view kAbout = "trained-parameters";
constexpr std::string_view kProvenance = "provenance";
constexpr int64_t kMostRank = 1 << 16;

std::span<const std::byte> bytes_of(const HostBuffer& buffer) {
  return {static_cast<const std::byte*>(buffer.data()), buffer.bytes()};
}

const char* zero_type(ZeroKind kind) {
  switch (kind) {
    case ZeroKind::kU4:
      return "u4";
    case ZeroKind::kU8:
      return "u8";
    case ZeroKind::kF16:
      return "f16";
    case ZeroKind::kNone:
      break;
  }
  return "";
}

const char* factor_type(int32_t bits) {
  return bits == 16 ? "f16" : bits == 8 ? "i8" : "i4";
}

// ---- writing ----

void write_linear(ArtifactWriter& out, const std::string& name, const QuantizedLinear& linear) {
  const QuantizedMatrix& m = linear.weight;
  const int64_t groups = m.view().groups();
  if (m.bits < 16) out.add_tensor(name + ".scales", "f16", {m.n, groups}, bytes_of(m.scales));
  if (m.bits < 16 && m.zero_kind != ZeroKind::kNone)
    out.add_tensor(name + ".zeros", zero_type(m.zero_kind), {int64_t{m.n} * groups},
                   bytes_of(m.zeros));
  if (!linear.bias.empty()) out.add_tensor(name + ".bias", "f16", {m.n}, linear.bias.raw());
  if (!linear.compensator) return;
  const ErrorCompensator& ec = *linear.compensator;
  const char* type = factor_type(ec.factor_bits);
  out.add_tensor(name + ".ec.a", type, {ec.rank, ec.k}, bytes_of(ec.a));
  out.add_tensor(name + ".ec.b", type, {ec.rank, ec.n}, bytes_of(ec.b));
  if (ec.factor_bits != 16) {
    out.add_tensor(name + ".ec.a_scales", "f16", {ec.rank}, bytes_of(ec.a_scales));
    out.add_tensor(name + ".ec.b_scales", "f16", {ec.rank}, bytes_of(ec.b_scales));
  }
  if (ec.gate_hidden > 0)
    out.add_tensor(name + ".ec.gate", "f16", {static_cast<int64_t>(ec.gate.bytes() / 2)},
                   bytes_of(ec.gate));
}

void write_norm(ArtifactWriter& out, const std::string& name, const HostTensor& norm) {
  if (!norm.empty()) out.add_tensor(name, name_of(norm.dtype()), norm.shape(), norm.raw());
}

// ---- reading ----

class Reader {
 public:
  Reader(const Artifact& artifact, std::string source)
      : artifact_(artifact), source_(std::move(source)) {}

  [[nodiscard]] const ArtifactTensor* find(const std::string& name) const {
    return artifact_.find(name);
  }

  HostBuffer copy(const std::string& name, std::string_view type, const Shape& shape) const {
    const auto bytes = value_or_throw(artifact_.tensor(name, type, shape));
    if (type == "f16") refuse_infinities(name, bytes);
    HostBuffer out(bytes.size());
    if (!bytes.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }
  [[noreturn]] void refuse(const std::string& what) const {
    throw Failure(ErrorCode::kBadFile, fmt::format("{}: {}", source_, what));
  }

 private:
  void refuse_infinities(const std::string& name, std::span<const std::byte> bytes) const {
    for (size_t i = 0; i + 1 < bytes.size(); i += 2) {
      uint16_t bits = 0;
      std::memcpy(&bits, bytes.data() + i, sizeof(bits));
      if ((bits & 0x7c00u) == 0x7c00u)
        refuse(fmt::format("tensor {}: element {} is not finite", name, i / 2));
    }
  }
  const Artifact& artifact_;
  std::string source_;
};

// What a linear becomes; its codes stay.
struct NewLinear {
  HostBuffer scales, zeros;
  ZeroKind zero_kind = ZeroKind::kNone;
  HostTensor bias;
  std::optional<ErrorCompensator> compensator;
};

void read_zeros(const Reader& in, const std::string& name, const QuantizedMatrix& base,
                NewLinear& out) {
  const ArtifactTensor* zeros = in.find(name + ".zeros");
  out.zero_kind = ZeroKind::kNone;
  if (zeros == nullptr) {
    if (base.zero_kind != ZeroKind::kNone)
      in.refuse(fmt::format("tensor {}.zeros is missing", name));
    return;
  }
  for (const ZeroKind kind : {ZeroKind::kU4, ZeroKind::kU8, ZeroKind::kF16})
    if (zeros->dtype == zero_type(kind)) out.zero_kind = kind;
  if (out.zero_kind == ZeroKind::kNone || base.zero_kind == ZeroKind::kNone)
    in.refuse(fmt::format("tensor {}.zeros: type {} does not fit the base", name, zeros->dtype));
  out.zeros = in.copy(name + ".zeros", zeros->dtype, {int64_t{base.n} * base.view().groups()});
}

std::optional<ErrorCompensator> read_compensator(const Reader& in, const std::string& name,
                                                 const QuantizedMatrix& base) {
  const ArtifactTensor* a = in.find(name + ".ec.a");
  if (a == nullptr) return std::nullopt;
  ErrorCompensator ec;
  ec.n = base.n;
  ec.k = base.k;
  ec.factor_bits = 0;
  for (const int32_t bits : {4, 8, 16})
    if (a->dtype == factor_type(bits)) ec.factor_bits = bits;
  const int64_t rank = a->shape.rank() == 2 ? a->shape[0] : 0;
  if (ec.factor_bits == 0 || rank < 1 || rank > kMostRank)
    in.refuse(
        fmt::format("tensor {}.ec.a: type {} and shape {}, expected i4, i8 or f16 and [rank, {}]",
                    name, a->dtype, a->shape.text(), base.k));
  ec.rank = static_cast<int32_t>(rank);
  ec.a = in.copy(name + ".ec.a", a->dtype, {rank, ec.k});
  ec.b = in.copy(name + ".ec.b", a->dtype, {rank, ec.n});
  if (ec.factor_bits != 16) {
    ec.a_scales = in.copy(name + ".ec.a_scales", "f16", {rank});
    ec.b_scales = in.copy(name + ".ec.b_scales", "f16", {rank});
  }
  if (const ArtifactTensor* gate = in.find(name + ".ec.gate"); gate != nullptr) {
    // 2·hidden·rank + hidden + rank values
    const int64_t count = gate->shape.rank() == 1 ? gate->shape[0] : 0;
    const int64_t hidden = (count - rank) / (2 * rank + 1);
    if (hidden < 1 || hidden * (2 * rank + 1) + rank != count)
      in.refuse(fmt::format("tensor {}.ec.gate: shape {} fits no gate of rank {}", name,
                            gate->shape.text(), rank));
    ec.gate_hidden = static_cast<int32_t>(hidden);
    ec.gate = in.copy(name + ".ec.gate", "f16", {count});
  }
  return ec;
}

NewLinear read_linear(const Reader& in, const std::string& name, const QuantizedMatrix& base) {
  NewLinear out;
  if (base.bits < 16) {
    out.scales = in.copy(name + ".scales", "f16", {base.n, base.view().groups()});
    read_zeros(in, name, base, out);
  }
  if (in.find(name + ".bias") != nullptr) {
    const HostBuffer bytes = in.copy(name + ".bias", "f16", {base.n});
    out.bias = HostTensor(Shape{base.n}, DType::kF16);
    std::memcpy(out.bias.mutable_view().data, bytes.data(), bytes.bytes());
  }
  out.compensator = read_compensator(in, name, base);
  return out;
}

HostTensor read_norm(const Reader& in, const std::string& name, int64_t width) {
  const ArtifactTensor* tensor = in.find(name);
  if (tensor == nullptr) return {};
  if (tensor->dtype != "f16" && tensor->dtype != "f32")
    in.refuse(fmt::format("tensor {}: type {}, expected f16 or f32", name, tensor->dtype));
  const HostBuffer bytes = in.copy(name, tensor->dtype, {width});
  HostTensor out(Shape{width}, tensor->dtype == "f16" ? DType::kF16 : DType::kF32);
  std::memcpy(out.mutable_view().data, bytes.data(), bytes.bytes());
  if (out.dtype() == DType::kF32)
    for (const float value : out.as<float>())
      if (!std::isfinite(value))
        in.refuse(fmt::format("tensor {} holds a value that is not finite", name));
  return out;
}

void apply(const Reader& in, QuantizedModel& model) {
  const int64_t width = model.config.hidden_size;
  std::vector<NewLinear> linears;
  std::vector<HostTensor> norms;
  for (size_t l = 0; l < model.layers.size(); ++l) {
    for (const Module m : kModules)
      linears.push_back(read_linear(in, name_of(ModuleId{static_cast<int32_t>(l), m}),
                                    model.layers[l].linear(m).weight));
    norms.push_back(read_norm(in, fmt::format("layers.{}.input_layernorm", l), width));
    norms.push_back(read_norm(in, fmt::format("layers.{}.post_attention_layernorm", l), width));
  }
  HostTensor final_norm = read_norm(in, "final_norm", width);
  if (final_norm.empty()) in.refuse("tensor final_norm is missing");
  // Everything is read: from here on nothing can fail.
  for (size_t l = 0; l < model.layers.size(); ++l) {
    for (const Module m : kModules) {
      NewLinear& from = linears[l * kModulesPerLayer + static_cast<size_t>(m)];
      QuantizedLinear& to = model.layers[l].linear(m);
      to.weight.scales = std::move(from.scales);
      to.weight.zeros = std::move(from.zeros);
      to.weight.zero_kind = from.zero_kind;
      to.bias = std::move(from.bias);
      to.compensator = std::move(from.compensator);
    }
    model.layers[l].input_norm = std::move(norms[2 * l]);
    model.layers[l].post_attention_norm = std::move(norms[2 * l + 1]);
  }
  model.final_norm = std::move(final_norm);
}

}  // namespace

std::string base_hash(const QuantizedModel& model) {
  Sha256 digest;
  const std::string config = to_json_text(model.config);
  digest.update(std::as_bytes(std::span(config.data(), config.size())));
  const auto add = [&](const QuantizedMatrix& m) {
    const int32_t shape[4] = {m.n, m.k, m.bits, m.group};
    digest.update(std::as_bytes(std::span(shape)));
    digest.update(bytes_of(m.codes));
  };
  for (const QuantizedMatrix* table : {&model.embedding, &model.head}) {
    add(*table);
    digest.update(bytes_of(table->scales));
    digest.update(bytes_of(table->zeros));
  }
  if (model.rotation)
    for (const auto* part :
         {&model.rotation->signs_in, &model.rotation->factor, &model.rotation->signs_out})
      digest.update(std::as_bytes(std::span(*part)));
  for (const QuantizedLayer& layer : model.layers)
    for (const Module m : kModules) add(layer.linear(m).weight);
  return digest.hex();
}

void export_parameters(const std::filesystem::path& path, const QuantizedModel& model,
                       const std::string& provenance) {
  ArtifactWriter out(path);
  const Json about = {{"base", base_hash(model)}, {"model", model.config.name}};
  out.add_section(kAbout, about.dump());
  if (!provenance.empty()) out.add_section(kProvenance, provenance);
  out.begin_section("parameters");
  write_norm(out, "final_norm", model.final_norm);
  for (size_t l = 0; l < model.layers.size(); ++l) {
    write_norm(out, fmt::format("layers.{}.input_layernorm", l), model.layers[l].input_norm);
    write_norm(out, fmt::format("layers.{}.post_attention_layernorm", l),
               model.layers[l].post_attention_norm);
    for (const Module m : kModules)
      write_linear(out, name_of(ModuleId{static_cast<int32_t>(l), m}), model.layers[l].linear(m));
  }
  out.end_section();
  out.commit();
}

Result<std::string> apply_parameters(const std::filesystem::path& path, QuantizedModel& model) {
  const std::string source = path.string();
  try {
    const Artifact artifact = value_or_throw(Artifact::open(path));
    value_or_throw(artifact.verify());
    if (!artifact.has(kAbout))
      return fail(
          ErrorCode::kBadFile,
          fmt::format("{}: no section {}: this is no file of trained parameters (spear compress "
                      "--export-params writes one)",
                      source, kAbout));
    const Json about = value_or_throw(parse_json(value_or_throw(artifact.text(kAbout)), source));
    const auto found = about.is_object() ? about.find("base") : about.end();
    if (!about.is_object() || found == about.end() || !found->is_string())
      return fail(ErrorCode::kBadFile, fmt::format("{}: section {}: no base hash", source, kAbout));
    const auto expected = found->get<std::string>();
    if (const std::string own = base_hash(model); own != expected)
      return fail(
          ErrorCode::kUsage,
          fmt::format("{}: made for a base with hash {:.16}, this base has {:.16}: rebuild the "
                      "base with the model, options and seed that its provenance names",
                      source, expected, own));
    apply(Reader(artifact, source), model);
    return artifact.has(kProvenance) ? std::string(value_or_throw(artifact.text(kProvenance)))
                                     : std::string();
  } catch (const Failure& failure) {
    return tl::unexpected<Error>(failure.error());
  }
}

}  // namespace spear
