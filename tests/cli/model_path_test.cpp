// Which path a model takes when none is named.
#include "spear/cli/model_path.h"

#include <gtest/gtest.h>

namespace spear {
namespace {

OpenedModel with_certificate(std::string certificate, bool rotated) {
  OpenedModel opened;
  opened.file = std::make_unique<ModelFile>();
  opened.file->texts.certificate = std::move(certificate);
  if (rotated) opened.file->model.rotation.emplace();
  return opened;
}

DecoderPath measured(double exact, double int8) {
  const std::string text = with_activation_cost(R"({"models": []})", {exact, int8});
  return path_of("auto", with_certificate(text, true));
}

TEST(ModelPath, TakesEightBitsWhereTheyRaiseKlByFivePercentOrLess) {
  EXPECT_EQ(measured(0.1000, 0.1049), DecoderPath::kFused);
  EXPECT_EQ(measured(0.1000, 0.0990), DecoderPath::kFused);
  EXPECT_EQ(measured(0.1000, 0.1051), DecoderPath::kFusedExact);
}

TEST(ModelPath, WithoutAMeasurementGoesByTheRotation) {
  for (const char* certificate :
       {"", "{", "[]", R"({"activations": 3})", R"({"activations": {"kl_exact": "x"}})",
        R"({"activations": {"kl_exact": 0, "kl_int8": 0}})"}) {
    EXPECT_EQ(path_of("auto", with_certificate(certificate, true)), DecoderPath::kFused);
    EXPECT_EQ(path_of("auto", with_certificate(certificate, false)), DecoderPath::kFusedExact);
  }
}

TEST(ModelPath, ANamedPathIsTaken) {
  const OpenedModel model = with_certificate("", false);
  EXPECT_EQ(path_of("engine", model), DecoderPath::kFused);
  EXPECT_EQ(path_of("exact", model), DecoderPath::kFusedExact);
  EXPECT_EQ(path_of("ref", model), DecoderPath::kPlain);
  EXPECT_EQ(path_of("auto", OpenedModel{}), DecoderPath::kPlain);
}

}  // namespace
}  // namespace spear
