// A tiny student read from a golden file (tests/golden/make_gradients_goldens.py), with everything
// its graph needs.
#pragma once

#include <cstdint>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "spear/base/mapped_file.h"
#include "spear/model/gradients.h"
#include "spear/model/gradients_student.h"

#include "gradients_plain_ops.h"

namespace spear::test {

using NamedArrays = std::map<std::string, std::vector<double>>;

inline NamedArrays read_named_arrays(const std::string& path) {
  NamedArrays arrays;
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  const auto number = [&] {
    uint32_t value = 0;
    file.read(reinterpret_cast<char*>(&value), sizeof(value));
    return value;
  };
  const auto fill = [&]<class T>(std::vector<double>& out, uint32_t count, T) {
    std::vector<T> raw(count);
    file.read(reinterpret_cast<char*>(raw.data()), static_cast<std::streamsize>(count * sizeof(T)));
    out.assign(raw.begin(), raw.end());
  };
  while (file.peek() != std::ifstream::traits_type::eof()) {
    std::string name(number(), ' ');
    file.read(name.data(), static_cast<std::streamsize>(name.size()));
    const uint32_t type = number();
    const uint32_t count = number();
    std::vector<double>& out = arrays[name];
    if (type == 0) fill(out, count, double{});
    if (type == 1) fill(out, count, uint8_t{});
    if (type == 2) fill(out, count, int32_t{});
    if (type == 3) fill(out, count, float{});
  }
  return arrays;
}

inline ModelConfig golden_config() {
  ModelConfig config;
  config.architecture = "qwen3";
  config.hidden_size = 12;
  config.intermediate_size = 20;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 4;
  config.vocab_size = 30;
  config.max_position_embeddings = 64;
  config.tie_word_embeddings = true;
  config.attention_bias = true;
  config.qk_norm = true;
  return config;
}

struct GradientCase {
  static constexpr int64_t kSequences = 2, kLength = 5;

  explicit GradientCase(const std::string& name)
      : arrays(read_named_arrays(std::string(SPEAR_SOURCE_DIR) + "/tests/golden/gradients/" + name +
                                 ".bin")) {
    model.config = golden_config();
    model.embedding = matrix("embedding", static_cast<int32_t>(model.config.vocab_size), 12, 12, 8);
    model.rotation = ResidualRotation{3, 4, floats("rotation.signs_in"),
                                      floats("rotation.signs_out"), floats("rotation.factor")};
    model.final_norm = ones(12);
    const std::vector<double>& shape = arrays.at("shape");
    for (int32_t l = 0; l < 2; ++l)
      model.layers.push_back(layer(l, static_cast<int32_t>(shape[0])));
    student =
        make_student(model, {.row_bias = true, .layer_norms = true},
                     compensators(static_cast<int32_t>(shape[1]), static_cast<int32_t>(shape[2])));
    for (const ParameterSpan& span : student.spans) {
      const std::vector<double>& from = arrays.at("value." + span.name);
      EXPECT_EQ(static_cast<int64_t>(from.size()), span.count()) << span.name;
      values.insert(values.end(), from.begin(), from.end());
      const std::vector<double>& gradient = arrays.at("gradient." + span.name);
      expected.insert(expected.end(), gradient.begin(), gradient.end());
    }
    for (const double token : arrays.at("tokens")) tokens.push_back(static_cast<int32_t>(token));
    student_head.resize(static_cast<size_t>(model.config.vocab_size) * 12);
    dequantize_rows(model.embedding.view(), 0, model.config.vocab_size, student_head.data());
  }

  [[nodiscard]] std::vector<float> floats(const std::string& name) const {
    const std::vector<double>& from = arrays.at(name);
    return {from.begin(), from.end()};
  }

  NamedArrays arrays;
  QuantizedModel model;
  StudentModel student;
  std::vector<double> values, expected;
  std::vector<int32_t> tokens;
  std::vector<float> student_head;

 private:
  static HostTensor ones(int64_t width) {
    HostTensor tensor(Shape{width}, DType::kF32);
    for (float& value : tensor.as<float>()) value = 1.0f;
    return tensor;
  }
  QuantizedMatrix matrix(const std::string& name, int32_t n, int32_t k, int32_t group,
                         int32_t bits) const {
    UnpackedMatrix m;
    m.n = n;
    m.k = k;
    m.bits = bits;
    m.group = group;
    const std::vector<double>& codes = arrays.at(name + ".codes");
    m.codes.assign(codes.begin(), codes.end());
    m.scales = floats(name + ".scales");
    m.zeros = arrays.count(name + ".zeros") != 0 ? floats(name + ".zeros")
                                                 : std::vector<float>(m.scales.size(), 7.0f);
    return pack(m, ZeroKind::kF16);
  }
  QuantizedLayer layer(int32_t l, int32_t group) const {
    QuantizedLayer out;
    out.q_norm = ones(4);
    out.k_norm = ones(4);
    for (const Module m : kModules) {
      const auto n = static_cast<int32_t>(out_features(model.config, m));
      const auto k = static_cast<int32_t>(in_features(model.config, m));
      out.linear(m).weight = matrix(name_of({l, m}), n, k, group == 0 ? k : group, 4);
    }
    return out;
  }
  CompensatorList compensators(int32_t rank, int32_t hidden) const {
    CompensatorList list(14);
    for (int32_t index = 0; rank > 0 && index < 14; ++index) {
      const auto m = static_cast<Module>(index % kModulesPerLayer);
      CompensatorValues ec;
      ec.rank = rank;
      ec.n = static_cast<int32_t>(out_features(model.config, m));
      ec.k = static_cast<int32_t>(in_features(model.config, m));
      ec.gate_hidden = hidden;
      ec.a.resize(static_cast<size_t>(rank * ec.k));
      ec.b.resize(static_cast<size_t>(rank * ec.n));
      ec.w1.resize(static_cast<size_t>(rank * hidden));
      ec.w2.resize(static_cast<size_t>(rank * hidden));
      ec.b1.resize(static_cast<size_t>(hidden));
      ec.b2.resize(static_cast<size_t>(hidden == 0 ? 0 : rank));
      list[static_cast<size_t>(index)] = ec;
    }
    return list;
  }
};

// A case as training runs it: its teacher exact in BF16, its values exact in F32.
struct TrainingCase : GradientCase {
  explicit TrainingCase(const std::string& name) : GradientCase(name) {
    for (double& state : arrays.at("teacher")) {
      teacher.push_back(bf16_from_float(static_cast<float>(state)));
      state = float_from_bf16(teacher.back());
    }
    for (double& value : arrays.at("teacher_head")) {
      teacher_head.push_back(bf16_from_float(static_cast<float>(value)));
      value = float_from_bf16(teacher_head.back());
    }
    for (double& value : values) value = static_cast<float>(value);
    floats32.assign(values.begin(), values.end());
  }
  TrainingCase(const TrainingCase&) = delete;
  TrainingCase& operator=(const TrainingCase&) = delete;

  [[nodiscard]] TensorView head() const {
    return {teacher_head.data(), Shape{model.config.vocab_size, 12}, DType::kBF16};
  }
  [[nodiscard]] StudentBatch batch() const {
    return {tokens, kSequences, kLength, teacher, static_cast<float>(arrays.at("temperature")[0])};
  }

  std::vector<uint16_t> teacher, teacher_head;
  std::vector<float> floats32;  // the values
};

// The FP64 graph of a case.
template <bool kRounded = false>
class PlainGraph {
 public:
  explicit PlainGraph(const GradientCase& from, bool keep = true)
      : from_(from),
        ops_(from.model.config),
        student_head_(rounded_head(from)),
        graph_(from.student, {student_head_.data(), from.arrays.at("teacher_head").data()}, ops_,
               keep, keep) {}

  double loss(const std::vector<double>& values) { return graph_.loss(values.data(), batch()); }
  std::vector<double> gradient(const std::vector<double>& values, KindSet wanted = ~KindSet{0}) {
    std::vector<double> out(values.size(), 0.0);
    kl = graph_.loss_and_gradient(values.data(), batch(), wanted, 1.0, out.data());
    return out;
  }
  double kl = 0;

 private:
  gradients::GraphBatch<double> batch() const {
    return {from_.tokens, GradientCase::kSequences, GradientCase::kLength,
            from_.arrays.at("teacher").data(), from_.arrays.at("temperature")[0]};
  }
  static std::vector<double> rounded_head(const GradientCase& from) {
    std::vector<double> head;
    for (const float value : from.student_head)
      head.push_back(PlainOps<double, kRounded>::to_factor(value));
    return head;
  }
  const GradientCase& from_;
  PlainOps<double, kRounded> ops_;
  std::vector<double> student_head_;
  gradients::Graph<PlainOps<double, kRounded>> graph_;
};

}  // namespace spear::test
