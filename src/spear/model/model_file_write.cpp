// A compressed model to its file: sections and tensors in the order of docs/artifact-format.md.
#include <span>
#include <utility>

#include <fmt/format.h>

#include "spear/model/model_file.h"
#include "spear/model/model_file_layout.h"

namespace spear {

using namespace model_file_layout;

namespace {

std::span<const std::byte> bytes_of(const HostBuffer& buffer) {
  return {static_cast<const std::byte*>(buffer.data()), buffer.bytes()};
}

void write_matrix(ArtifactWriter& out, const std::string& name, const QuantizedMatrix& m) {
  out.add_tensor(name + ".codes", code_type(m.bits), {m.n, m.k}, bytes_of(m.codes));
  if (m.bits == 16) return;
  const int64_t groups = m.view().groups();
  out.add_tensor(name + ".scales", "f16", {m.n, groups}, bytes_of(m.scales));
  switch (m.zero_kind) {
    case ZeroKind::kNone:
      break;
    case ZeroKind::kU4:
      out.add_tensor(name + ".zeros", "u4", {int64_t{m.n} * groups}, bytes_of(m.zeros));
      break;
    case ZeroKind::kU8:
      out.add_tensor(name + ".zeros", "u8", {m.n, groups}, bytes_of(m.zeros));
      break;
    case ZeroKind::kF16:
      out.add_tensor(name + ".zeros", "f16", {m.n, groups}, bytes_of(m.zeros));
      break;
  }
}

void write_compensator(ArtifactWriter& out, const std::string& name, const ErrorCompensator& ec) {
  out.add_tensor(name + ".ec.a", factor_type(ec.factor_bits), {ec.rank, ec.k}, bytes_of(ec.a));
  out.add_tensor(name + ".ec.b", factor_type(ec.factor_bits), {ec.rank, ec.n}, bytes_of(ec.b));
  if (ec.factor_bits != 16) {
    out.add_tensor(name + ".ec.a_scales", "f16", {ec.rank}, bytes_of(ec.a_scales));
    out.add_tensor(name + ".ec.b_scales", "f16", {ec.rank}, bytes_of(ec.b_scales));
  }
  if (ec.gate_hidden == 0) return;
  const CompensatorView v = ec.view();
  const auto put = [&](const char* part, const Shape& shape, const uint16_t* values) {
    out.add_tensor(name + part, "f16", shape,
                   std::as_bytes(std::span(values, static_cast<size_t>(shape.count()))));
  };
  put(".ec.gate.w1", {ec.gate_hidden, ec.rank}, v.w1);
  put(".ec.gate.b1", {ec.gate_hidden}, v.b1);
  put(".ec.gate.w2", {ec.rank, ec.gate_hidden}, v.w2);
  put(".ec.gate.b2", {ec.rank}, v.b2);
}

void write_tensor(ArtifactWriter& out, const std::string& name, const HostTensor& tensor) {
  if (!tensor.empty()) out.add_tensor(name, name_of(tensor.dtype()), tensor.shape(), tensor.raw());
}

void write_layer(ArtifactWriter& out, int32_t index, const QuantizedLayer& layer) {
  const std::string prefix = fmt::format("layers.{}", index);
  out.begin_section(prefix);
  write_tensor(out, prefix + ".input_layernorm", layer.input_norm);
  write_tensor(out, prefix + ".post_attention_layernorm", layer.post_attention_norm);
  write_tensor(out, prefix + ".self_attn.q_norm", layer.q_norm);
  write_tensor(out, prefix + ".self_attn.k_norm", layer.k_norm);
  for (const Module module : kModules) {
    const QuantizedLinear& linear = layer.linear(module);
    const std::string name = name_of(ModuleId{index, module});
    write_matrix(out, name, linear.weight);
    write_tensor(out, name + ".bias", linear.bias);
    if (linear.compensator) write_compensator(out, name, *linear.compensator);
  }
  out.end_section();
}

std::vector<int8_t> signs_of(const std::vector<float>& values) {
  std::vector<int8_t> out;
  for (const float value : values) out.push_back(value < 0 ? int8_t{-1} : int8_t{1});
  return out;
}

}  // namespace

void save_model(const std::filesystem::path& path, const QuantizedModel& model,
                const ModelTexts& texts) {
  ArtifactWriter out(path);
  out.add_section("config", to_json_text(model.config));
  for (const TextSection& section : kTextSections)
    if (const std::string& text = texts.*section.text; !text.empty())
      out.add_section(section.name, text);
  out.begin_section("ends");
  write_matrix(out, "embedding", model.embedding);
  if (!model.head.empty()) write_matrix(out, "head", model.head);
  write_tensor(out, "final_norm", model.final_norm);
  if (model.rotation) {
    const ResidualRotation& r = *model.rotation;
    out.add_tensor("rotation.factor", "f32", {r.p, r.p}, std::as_bytes(std::span(r.factor)));
    for (const auto& [name, values] : {std::pair("rotation.signs_in", &r.signs_in),
                                       std::pair("rotation.signs_out", &r.signs_out)}) {
      const std::vector<int8_t> signs = signs_of(*values);
      out.add_tensor(name, "i8", {r.p * r.h}, std::as_bytes(std::span(signs)));
    }
  }
  out.end_section();
  for (size_t l = 0; l < model.layers.size(); ++l)
    write_layer(out, static_cast<int32_t>(l), model.layers[l]);
  out.commit();
}

}  // namespace spear
