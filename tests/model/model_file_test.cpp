#include "spear/model/model_file.h"

#include <cstring>
#include <functional>
#include <limits>

#include <gtest/gtest.h>

#include "spear/base/atomic_file.h"
#include "spear/base/rng.h"

#include "support/random_tensors.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace spear {
namespace {

// Every optional thing at once: rotation, groups, all zero kinds, gated compensators of each width,
// biases, untied head.
QuantizedModel rich_model() {
  QuantizedModel model =
      test::tiny_quantized(test::tiny_model({.tied = false, .attention_bias = true}), 4);
  Rng rng(11);
  int turn = 0;
  for (QuantizedLayer& layer : model.layers)
    for (QuantizedLinear& linear : layer.linears) {
      UnpackedMatrix m = unpack(linear.weight.view());
      const int32_t groups = turn % 2 == 0 ? 1 : 2;
      m.group = m.k / groups;
      m.scales.assign(static_cast<size_t>(m.n * groups), 0.5f);
      m.zeros.assign(static_cast<size_t>(m.n * groups), 7.0f);
      m.symmetric = turn % 4 == 3;
      if (m.symmetric) m.zeros.assign(m.zeros.size(), 8.0f);
      const ZeroKind kinds[] = {ZeroKind::kU4, ZeroKind::kU8, ZeroKind::kF16};
      linear.weight = pack(m, kinds[turn % 3]);
      if (turn % 2 == 0) {
        CompensatorValues values;
        values.rank = 2;
        values.n = m.n;
        values.k = m.k;
        values.a = test::normal_values(2 * m.k, rng);
        values.b = test::normal_values(2 * m.n, rng);
        if (turn % 4 == 0) {
          values.gate_hidden = 3;
          values.w1 = test::normal_values(6, rng);
          values.b1 = test::normal_values(3, rng);
          values.w2 = test::normal_values(6, rng);
          values.b2 = test::normal_values(2, rng);
        }
        const int32_t widths[] = {4, 8, 16};
        linear.compensator = pack(values, widths[turn % 3]);
      }
      ++turn;
    }
  model.layers[1].input_norm = {};
  model.rotation = ResidualRotation{3,
                                    8,
                                    std::vector<float>(24, 1.0f),
                                    std::vector<float>(24, -1.0f),
                                    {1, 0, 0, 0, 0, -1, 0, 1, 0}};
  return model;
}

bool same(const HostBuffer& a, const HostBuffer& b) {
  return a.bytes() == b.bytes() &&
         (a.bytes() == 0 || std::memcmp(a.data(), b.data(), a.bytes()) == 0);
}

bool same(const HostTensor& a, const HostTensor& b) {
  return a.bytes() == b.bytes() &&
         (a.empty() || std::memcmp(a.raw().data(), b.raw().data(), a.bytes()) == 0);
}

void expect_same(const QuantizedMatrix& a, const QuantizedMatrix& b) {
  EXPECT_EQ(a.bits, b.bits);
  EXPECT_EQ(a.group, b.group);
  EXPECT_EQ(a.zero_kind, b.zero_kind);
  EXPECT_TRUE(same(a.codes, b.codes));
  EXPECT_TRUE(same(a.scales, b.scales));
  EXPECT_TRUE(same(a.zeros, b.zeros));
}

class ModelFileTest : public ::testing::Test {
 protected:
  const test::TemporaryDirectory folder_;
  const std::filesystem::path path_ = folder_.path() / "model.spear";
};

TEST_F(ModelFileTest, GivesBackEveryByte) {
  const QuantizedModel model = rich_model();
  const ModelTexts texts{"{\"tokenizer\": 1}", "{{ messages }}", "apache-2.0", "{}", "", "{}"};
  save_model(path_, model, texts);
  const ModelFile file = value_or_throw(load_model(path_));
  ASSERT_TRUE(file.artifact->verify().has_value());
  EXPECT_EQ(to_json_text(file.model.config), to_json_text(model.config));
  EXPECT_EQ(file.texts.tokenizer, texts.tokenizer);
  EXPECT_EQ(file.texts.chat_template, texts.chat_template);
  EXPECT_EQ(file.texts.certificate, "");
  expect_same(file.model.embedding, model.embedding);
  expect_same(file.model.head, model.head);
  EXPECT_TRUE(same(file.model.final_norm, model.final_norm));
  ASSERT_TRUE(file.model.rotation.has_value());
  EXPECT_EQ(file.model.rotation->signs_out, model.rotation->signs_out);
  EXPECT_EQ(file.model.rotation->factor, model.rotation->factor);
  ASSERT_EQ(file.model.layers.size(), model.layers.size());
  for (size_t l = 0; l < model.layers.size(); ++l) {
    EXPECT_TRUE(same(file.model.layers[l].input_norm, model.layers[l].input_norm));
    for (const Module m : kModules) {
      const QuantizedLinear& a = file.model.layers[l].linear(m);
      const QuantizedLinear& b = model.layers[l].linear(m);
      expect_same(a.weight, b.weight);
      EXPECT_TRUE(same(a.bias, b.bias));
      ASSERT_EQ(a.compensator.has_value(), b.compensator.has_value());
      if (!a.compensator) continue;
      EXPECT_EQ(a.compensator->factor_bits, b.compensator->factor_bits);
      EXPECT_TRUE(same(a.compensator->a, b.compensator->a));
      EXPECT_TRUE(same(a.compensator->b, b.compensator->b));
      EXPECT_TRUE(same(a.compensator->a_scales, b.compensator->a_scales));
      EXPECT_TRUE(same(a.compensator->gate, b.compensator->gate));
    }
  }
  EXPECT_EQ(count_bytes(file.model).total(), count_bytes(model).total());
}

TEST_F(ModelFileTest, RefusesADamagedByteOfEverySectionByItsName) {
  save_model(path_, rich_model(), {"{}", "{{ messages }}", "apache-2.0", "{}", "", "{}"});
  const std::string whole = value_or_throw(read_text_file(path_));
  std::vector<std::pair<std::string, size_t>> places;  // a byte in the middle of each section
  {
    const Artifact artifact = value_or_throw(Artifact::open(path_));
    for (const ArtifactSection& s : artifact.sections())
      places.emplace_back(s.name, static_cast<size_t>(s.offset) + s.bytes.size() / 2);
  }
  ASSERT_GT(places.size(), 7u);
  for (const auto& [section, at] : places) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    write_file_atomically(path_, damaged);
    const Result<ModelFile> file = load_model(path_);
    ASSERT_FALSE(file.has_value()) << section;
    EXPECT_EQ(file.error().code, ErrorCode::kBadFile);
    for (const char* word : {"model.spear", "checksum", section.c_str()})
      EXPECT_NE(file.error().message.find(word), std::string::npos) << file.error().message;
  }
}

TEST_F(ModelFileTest, LooksAtAFileWithoutReadingItsWeightsWhenAsked) {
  save_model(path_, rich_model(), {});
  std::string damaged = value_or_throw(read_text_file(path_));
  {
    const Artifact artifact = value_or_throw(Artifact::open(path_));
    const auto codes = artifact.find("layers.0.mlp.gate_proj.codes")->bytes;
    const auto at = static_cast<size_t>(codes.data() - artifact.file().bytes().data());
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
  }
  write_file_atomically(path_, damaged);
  EXPECT_TRUE(load_model(path_, FileChecks::kStructure).has_value());
  EXPECT_FALSE(load_model(path_).has_value());
}

TEST_F(ModelFileTest, WritingALoadedModelAgainGivesTheSameFile) {
  save_model(path_, rich_model(), ModelTexts{"", "", "x", "", "", ""});
  const ModelFile file = value_or_throw(load_model(path_));
  const std::filesystem::path copy = folder_.path() / "copy.spear";
  save_model(copy, file.model, file.texts);
  EXPECT_EQ(value_or_throw(read_text_file(copy)), value_or_throw(read_text_file(path_)));
}

TEST_F(ModelFileTest, RefusesAModelThatContradictsItsConfiguration) {
  const std::pair<const char*, std::function<void(QuantizedModel&)>> cases[] = {
      {"layers.0.mlp.gate_proj.codes", [](QuantizedModel& m) { m.config.intermediate_size = 48; }},
      {"embedding.codes", [](QuantizedModel& m) { m.config.vocab_size = 47; }},
      {"head.codes is missing", [](QuantizedModel& m) { m.head = {}; }},
      {"not finite",
       [](QuantizedModel& m) {
         m.final_norm.as<float>()[3] = std::numeric_limits<float>::infinity();
       }},
      {"not finite",
       [](QuantizedModel& m) { m.layers[0].linears[2].weight.scales.as<uint16_t>()[0] = 0x7e00; }},
      {"q_norm is missing", [](QuantizedModel& m) { m.config.qk_norm = true; }},
      {"rotation.factor",
       [](QuantizedModel& m) {
         m.rotation->p = 1;
         m.rotation->h = 24;
         m.rotation->factor = {1};
       }},
  };
  for (const auto& [expected, damage] : cases) {
    QuantizedModel model = rich_model();
    damage(model);
    save_model(path_, model, {});
    const Result<ModelFile> file = load_model(path_);
    ASSERT_FALSE(file.has_value()) << expected;
    EXPECT_NE(file.error().message.find(expected), std::string::npos) << file.error().message;
    EXPECT_NE(file.error().message.find("model.spear"), std::string::npos) << file.error().message;
  }
}

TEST_F(ModelFileTest, RefusesSignsAndRanksThatCannotBe) {
  QuantizedModel model = rich_model();
  save_model(path_, model, {});
  {
    ArtifactWriter out(path_);
    out.add_section("config", to_json_text(model.config));
    out.begin_section("ends");
    const std::vector<std::byte> codes(48 * 24 * 2);
    out.add_tensor("embedding.codes", "bf16", {48, 24}, codes);
    out.add_tensor("head.codes", "bf16", {48, 24}, codes);
    out.add_tensor("final_norm", "f32", {24}, std::vector<std::byte>(24 * 4));
    out.add_tensor("rotation.factor", "f32", {3, 3}, std::vector<std::byte>(36));
    out.add_tensor("rotation.signs_in", "i8", {24}, std::vector<std::byte>(24));
    out.add_tensor("rotation.signs_out", "i8", {24}, std::vector<std::byte>(24));
    out.end_section();
    out.commit();
  }
  const Result<ModelFile> file = load_model(path_);
  ASSERT_FALSE(file.has_value());
  EXPECT_NE(file.error().message.find("a sign is 0"), std::string::npos) << file.error().message;
}

}  // namespace
}  // namespace spear
