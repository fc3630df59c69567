#include "spear/quantize/quantize_model.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "spear/base/rng.h"
#include "spear/model/decoder.h"

#include "support/closeness.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace spear {
namespace {

constexpr test::TinyShape kShape{.hidden_size = 96,
                                 .intermediate_size = 192,
                                 .num_attention_heads = 4,
                                 .num_key_value_heads = 2,
                                 .head_dim = 32,
                                 .tied = false,
                                 .attention_bias = true};

struct Workshop {
  ThreadPool pool{2};
  DenseModel model;
  test::TemporaryDirectory folder;
  std::unique_ptr<Backend> backend = value_or_throw(make_cpu_backend(pool));
  TokenSequences tokens{8, 32, {}};
  std::unique_ptr<Covariances> covariances;
  SilentProgress progress;

  explicit Workshop(const test::TinyShape& shape = kShape) : model(test::tiny_model(shape)) {
    Rng rng(9);
    for (int64_t i = 0; i < tokens.count * tokens.length; ++i)
      tokens.ids.push_back(static_cast<int32_t>(rng.below(48)));
    covariances =
        std::make_unique<Covariances>(folder.path(), model.config, "m", "t", Compute::kF32);
    Decoder decoder(*backend, model, Compute::kF32);
    gather_covariances(decoder, tokens, {.compute = Compute::kF32}, *covariances, pool, progress);
  }
  QuantizedModel quantize(const QuantizeOptions& options, const ModuleVisitor& visitor = {}) {
    return quantize_model(model, covariances.get(), options, pool, progress, visitor);
  }
  template <class Model>
  std::vector<float> logits(const Model& any) {
    Decoder decoder(*backend, any, Compute::kF32);
    KvCache cache(*backend, model.config, 1, tokens.length, true);
    const std::vector<AttentionSequence> sequences = {cache.append(0, 0, tokens.length)};
    const DeviceBuffer hidden =
        backend->allocate(static_cast<size_t>(tokens.length * model.config.hidden_size) * 4);
    std::vector<float> out(static_cast<size_t>(tokens.length * model.config.vocab_size));
    const DeviceBuffer device = backend->allocate(out.size() * 4);
    decoder.forward({tokens.row(0), sequences}, cache, hidden.as<float>());
    decoder.logits(hidden.as<float>(), tokens.length, device.as<float>());
    backend->download(out.data(), device.as<float>(), out.size() * 4);
    return out;
  }
  template <class Model>
  double distance(const Model& any) {  // relative, of the logits
    const std::vector<float> expected = logits(model), actual = logits(any);
    double error = 0, size = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      error += std::pow(static_cast<double>(expected[i]) - actual[i], 2);
      size += std::pow(static_cast<double>(expected[i]), 2);
    }
    return std::sqrt(error / size);
  }
};

TEST(QuantizeModel, EveryCombinationGivesAModelThatRuns) {
  Workshop w;
  for (const QuantizeMethod method : {QuantizeMethod::kRtn, QuantizeMethod::kGptq})
    for (const int32_t bits : {2, 3, 4, 8})
      for (const int32_t group : {0, 32})
        for (const bool rotate : {false, true})
          for (const bool symmetric : {false, true}) {
            QuantizeOptions options;
            options.method = method;
            options.bits = bits;
            options.group = group;
            options.rotate = rotate;
            options.symmetric = symmetric;
            const QuantizedModel model = w.quantize(options);
            const double distance = w.distance(model);
            // A step of b bits is about 6σ / 2^b wide, its error a √12-th of that; two layers add
            // up. 4-bit tables and 8-bit heads are in it too.
            EXPECT_LT(distance, 0.1 + 6.0 * std::pow(2.0, 1 - bits))
                << bits << ' ' << group << ' ' << rotate;
            EXPECT_EQ(model.rotation.has_value(), rotate);
            EXPECT_EQ(model.layers[0].input_norm.empty(), rotate);
          }
}

TEST(QuantizeModel, MoreBitsAreCloser) {
  Workshop w;
  double last = 10;
  for (const int32_t bits : {2, 3, 4, 8}) {
    QuantizeOptions options;
    options.bits = bits;
    options.embedding_bits = options.head_bits = 16;
    const double distance = w.distance(w.quantize(options));
    EXPECT_LT(distance, last);
    last = distance;
  }
  EXPECT_LT(last, 0.02);
}

TEST(QuantizeModel, GptqIsCloserThanRtn) {
  Workshop w;
  QuantizeOptions options;
  options.embedding_bits = options.head_bits = 16;
  options.rotate = false;
  options.bits = 3;
  options.method = QuantizeMethod::kRtn;
  const double rtn = w.distance(w.quantize(options));
  options.method = QuantizeMethod::kGptq;
  EXPECT_LT(w.distance(w.quantize(options)), rtn);
}

TEST(QuantizeModel, TablesAreStoredAsAsked) {
  Workshop w;
  QuantizeOptions options;
  const QuantizedModel untied = w.quantize(options);
  EXPECT_EQ(untied.embedding.bits, 4);
  EXPECT_EQ(untied.embedding.group, 32);
  EXPECT_EQ(untied.head.bits, 8);
  EXPECT_EQ(untied.head.zero_kind, ZeroKind::kNone);
  for (const int32_t bits : {4, 6, 8, 16}) {
    options.embedding_bits = options.head_bits = bits;
    const QuantizedModel model = w.quantize(options);
    EXPECT_EQ(model.embedding.bits, bits);
    EXPECT_EQ(model.head.bits, bits);
  }
  Workshop tied({.tied = true});
  const QuantizedModel model = tied.quantize({});
  EXPECT_TRUE(model.head.empty());
  EXPECT_EQ(model.embedding.bits, 8);
  EXPECT_EQ(count_bytes(model).head, 0u);
}

TEST(QuantizeModel, PlainW4HasThePlainBytes) {
  Workshop w({.tied = true});
  QuantizeOptions options;
  options.method = QuantizeMethod::kRtn;
  options.rotate = false;
  const QuantizedModel model = w.quantize(options);
  const ByteCount bytes = count_bytes(model);
  // Norms are kept in F32 by the quantizer; the plain count has F16.
  EXPECT_EQ(bytes.weights + bytes.scales + bytes.zeros + bytes.embedding,
            plain_w4_bytes(model.config) -
                static_cast<size_t>(model.config.hidden_size) * (2 * 2 * 2 + 4));
}

TEST(QuantizeModel, PlainW4CountsAnEmbeddingOfItsOwnAsItIsStored) {
  Workshop w({.tied = false});
  QuantizeOptions options;
  options.method = QuantizeMethod::kRtn;
  options.rotate = false;
  const QuantizedModel model = w.quantize(options);
  const ByteCount bytes = count_bytes(model);
  EXPECT_EQ(model.embedding.bits, 4);
  EXPECT_EQ(bytes.total() - bytes.norms - bytes.biases,
            plain_w4_bytes(model.config) -
                static_cast<size_t>(model.config.hidden_size) * (2 * 2 * 2 + 4));
}

TEST(QuantizeModel, TheVisitorSeesEveryModuleOnceAndMayChangeIt) {
  Workshop w;
  std::vector<int> seen(static_cast<size_t>(2 * kModulesPerLayer));
  const QuantizedModel model = w.quantize({}, [&](ModuleWork& work) {
    ++seen[static_cast<size_t>(work.id.index())];
    EXPECT_EQ(work.weight.shape()[0], work.quantized.n);
    EXPECT_EQ(work.covariance->shape()[0], work.quantized.k);
    EXPECT_NE(work.factor, nullptr);
    if (work.id == ModuleId{1, Module::kUp}) work.quantized.scales[0] = 0.5f;
  });
  EXPECT_EQ(seen, std::vector<int>(seen.size(), 1));
  EXPECT_EQ(unpack(model.layers[1].linear(Module::kUp).weight.view()).scales[0], 0.5f);
}

TEST(QuantizeModel, IsTheSameTwice) {
  Workshop w;
  const QuantizedModel a = w.quantize({}), b = w.quantize({});
  EXPECT_EQ(unpack(a.layers[1].linear(Module::kDown).weight.view()).codes,
            unpack(b.layers[1].linear(Module::kDown).weight.view()).codes);
}

TEST(QuantizeModel, RefusesWhatItCannotDo) {
  const ModelConfig config = test::tiny_config(kShape);
  const auto message = [&](const QuantizeOptions& options) {
    const auto result = validate(options, config);
    return result ? std::string() : result.error().message;
  };
  QuantizeOptions options;
  EXPECT_EQ(message(options), "");
  options.bits = 5;
  EXPECT_NE(message(options).find("5 asked"), std::string::npos);
  options = {};
  options.group = 64;
  EXPECT_NE(message(options).find("96 inputs do not divide into groups of 64"), std::string::npos);
  options.group = 48;
  EXPECT_NE(message(options).find("48 asked"), std::string::npos);
  options = {};
  options.head_bits = 3;
  EXPECT_NE(message(options), "");
  options = {};
  options.damping = std::numeric_limits<double>::quiet_NaN();
  EXPECT_NE(message(options), "");
}

TEST(QuantizeModel, NamesTheModuleThatIsNotFinite) {
  Workshop w;
  w.model.layers[1].linear(Module::kO).weight.as<float>()[5] = std::nanf("");
  try {
    (void)w.quantize({});
    FAIL() << "accepted";
  } catch (const Failure& failure) {
    EXPECT_NE(failure.error().message.find("layers.1.self_attn.o_proj"), std::string::npos);
  }
}

}  // namespace
}  // namespace spear
