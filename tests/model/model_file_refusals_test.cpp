// Artifacts whose container is whole (every checksum right) and whose model cannot be: each is
// refused by a sentence that names the tensor.
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "spear/model/model_file.h"

#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace spear {
namespace {

// A tensor as it is about to be written again; an empty name drops it.
struct Edited {
  std::string name;
  std::string dtype;
  Shape shape;
  std::vector<std::byte> bytes;
};

constexpr const char* kTarget = "layers.1.mlp.down_proj";

class ModelFileRefusals : public ::testing::Test {
 protected:
  void SetUp() override {
    QuantizedModel model = test::tiny_quantized(test::tiny_model({}), 4);
    QuantizedLinear& linear = model.layers[1].linear(Module::kDown);
    CompensatorValues values;
    values.rank = 2;
    values.n = linear.weight.n;
    values.k = linear.weight.k;
    values.gate_hidden = 3;
    values.a.assign(static_cast<size_t>(2 * values.k), 0.5f);
    values.b.assign(static_cast<size_t>(2 * values.n), 0.5f);
    values.w1.assign(6, 0.5f);
    values.b1.assign(3, 0.5f);
    values.w2.assign(6, 0.5f);
    values.b2.assign(2, 0.5f);
    linear.compensator = pack(values, 8);
    save_model(path_, model, {});
  }

  // Writes the artifact again with every tensor passed through `edit`; the answer of load_model().
  std::string refusal(const std::function<void(Edited&)>& edit) const {
    const auto changed = folder_.path() / "changed.spear";
    const Artifact artifact = value_or_throw(Artifact::open(path_));
    ArtifactWriter out(changed);
    out.add_section("config", value_or_throw(artifact.text("config")));
    for (const ArtifactSection& section : artifact.sections()) {
      if (section.name != "ends" && !section.name.starts_with("layers.")) continue;
      out.begin_section(section.name);
      for (const ArtifactTensor& tensor : artifact.tensors()) {
        if (tensor.section != section.name) continue;
        Edited t{
            tensor.name, tensor.dtype, tensor.shape, {tensor.bytes.begin(), tensor.bytes.end()}};
        edit(t);
        if (!t.name.empty()) out.add_tensor(t.name, t.dtype, t.shape, t.bytes);
      }
      out.end_section();
    }
    out.commit();
    const auto file = load_model(changed);
    return file ? "accepted" : file.error().message;
  }

  // As above for one tensor of the target module.
  std::string refusal_of(const std::string& part, const std::function<void(Edited&)>& edit) const {
    return refusal([&](Edited& tensor) {
      if (tensor.name == kTarget + part) edit(tensor);
    });
  }

  void expect(const std::string& part, const std::function<void(Edited&)>& edit,
              std::string_view sentence) const {
    const std::string message = refusal_of(part, edit);
    EXPECT_NE(message.find(sentence), std::string::npos) << message << "\n  lacks: " << sentence;
    EXPECT_NE(message.find("changed.spear"), std::string::npos) << message;
  }

  const test::TemporaryDirectory folder_;
  const std::filesystem::path path_ = folder_.path() / "model.spear";
};

void reshape(Edited& tensor, const Shape& shape, size_t bytes) {
  tensor.shape = shape;
  tensor.bytes.assign(bytes, std::byte{1});
}

void set_f16(Edited& tensor, size_t index, uint16_t bits) {
  std::memcpy(tensor.bytes.data() + 2 * index, &bits, sizeof bits);
}

constexpr uint16_t kNan = 0x7e00;
constexpr uint16_t kInfinity = 0x7c00;

TEST_F(ModelFileRefusals, TheSameFileWrittenAgainIsAccepted) {
  EXPECT_EQ(refusal([](Edited&) {}), "accepted");
}

TEST_F(ModelFileRefusals, RanksThatCannotBe) {
  expect(
      ".ec.a",
      [](Edited& t) {
        reshape(t, {25, 40}, 25 * 40);
      },
      "rank 25, expected 1 to 24");
  expect(
      ".ec.a", [](Edited& t) { reshape(t, {80}, 80); }, "rank 0, expected 1 to 24");
  expect(
      ".ec.a",
      [](Edited& t) {
        reshape(t, {3, 40}, 120);
      },
      "ec.b\": i8 [2, 24], expected i8 [3, 24]");
  expect(
      ".ec.b",
      [](Edited& t) {
        reshape(t, {2, 23}, 46);
      },
      "i8 [2, 23], expected i8 [2, 24]");
  expect(
      ".ec.b", [](Edited& t) { t.name.clear(); }, "ec.b\" is missing");
  expect(
      ".ec.a_scales", [](Edited& t) { t.name.clear(); }, "ec.a_scales\" is missing");
}

TEST_F(ModelFileRefusals, CompensatorsOfNoModule) {
  const std::string message = refusal([](Edited& t) {
    if (t.name.find(".ec.") != std::string::npos) t.name.replace(7, 1, "9");
  });
  EXPECT_NE(message.find("layers.9.mlp.down_proj.ec.a in section layers.1 belongs to no part"),
            std::string::npos)
      << message;
  expect(
      ".ec.a", [](Edited& t) { t.name.clear(); }, "belongs to no part of this model");
  expect(
      ".ec.gate.w1", [](Edited& t) { t.name.clear(); }, "belongs to no part of this model");
}

TEST_F(ModelFileRefusals, GatesThatCannotBe) {
  for (const char* part : {".ec.gate.w1", ".ec.gate.b1", ".ec.gate.w2", ".ec.gate.b2"})
    for (const uint16_t bits : {kNan, kInfinity})
      expect(
          part, [&](Edited& t) { set_f16(t, 1, bits); }, "element 1 is not finite");
  expect(
      ".ec.gate.w1", [](Edited& t) { reshape(t, {6}, 12); }, "0 hidden units, expected 1 to");
  expect(
      ".ec.gate.b2", [](Edited& t) { reshape(t, {3}, 6); }, "f16 [3], expected f16 [2]");
}

TEST_F(ModelFileRefusals, ScalesAndZerosThatCannotBe) {
  for (const uint16_t bits : {kNan, kInfinity, static_cast<uint16_t>(0xfc00)}) {
    expect(
        ".scales", [&](Edited& t) { set_f16(t, 5, bits); }, "element 5 is not finite");
    expect(
        ".ec.a_scales", [&](Edited& t) { set_f16(t, 0, bits); }, "element 0 is not finite");
    expect(
        ".ec.b_scales", [&](Edited& t) { set_f16(t, 1, bits); }, "element 1 is not finite");
  }
  expect(
      ".scales",
      [](Edited& t) {
        reshape(t, {24, 7}, 24 * 7 * 2);
      },
      "7 groups do not divide 40 inputs");
  expect(
      ".scales",
      [](Edited& t) {
        reshape(t, {23, 1}, 46);
      },
      "f16 [23, 1], expected f16 [24, 1]");
  expect(
      ".scales", [](Edited& t) { t.dtype = "bf16"; }, "bf16 [24, 1], expected f16 [24, 1]");
}

TEST_F(ModelFileRefusals, ScalesOfZeroAndTheSmallestOnesAreRead) {
  for (const uint16_t bits : std::initializer_list<uint16_t>{0x0000, 0x0001, 0x8001})
    EXPECT_EQ(refusal_of(".scales", [&](Edited& t) { set_f16(t, 5, bits); }), "accepted");
}

TEST_F(ModelFileRefusals, CodesThatCannotBe) {
  expect(
      ".codes",
      [](Edited& t) {
        reshape(t, {24, 39}, 24 * 20);
      },
      "u4 [24, 39], expected u4 [24, 40]");
  expect(
      ".codes", [](Edited& t) { t.dtype = "i4"; }, "type i4, expected u2, u3, u4, u6, u8 or bf16");
  expect(
      ".codes", [](Edited& t) { t.name.clear(); }, "codes is missing");
}

}  // namespace
}  // namespace spear
