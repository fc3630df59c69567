// The forward pass of a Llama-family decoder over any backend, full precision or quantized.
// Prefill, decode and batches are one call: rows of several sequences, each with its place in a
// paged KV cache. One thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "spear/backend/backend.h"
#include "spear/model/config.h"
#include "spear/model/dense_model.h"
#include "spear/model/kv_cache.h"
#include "spear/model/quantized_model.h"

namespace spear {

// Which rows of a batch belong to which sequence. Tokens of a sequence are consecutive rows.
struct Batch {
  std::span<const int32_t> tokens;  // [m]
  std::span<const AttentionSequence>
      sequences;                       // cover all rows, in order; pages as KvCache gave them
  std::span<const uint8_t> bare = {};  // [m], 1: no compensator runs for this row; empty: all do
};

// Sees the input of every linear while the decoder runs: x is [m, k] of the site, on the backend.
using InputTap =
    std::function<void(int32_t layer, InputSite site, const float* x, int64_t m, int64_t k)>;

// A linear as the decoder runs it. Replaceable one by one (diagnosis quantizes a module alone).
using LinearPointer = std::shared_ptr<const PreparedLinear>;

struct DecoderLayer {
  DeviceBuffer input_norm, post_attention_norm, q_norm, k_norm;  // F32, empty: ones / absent
  std::array<LinearPointer, kModulesPerLayer> linears;
};

// How a quantized decoder runs. The fused paths are the backend's compiled step; where it has none
// for a model, the plain path runs and describe() says why.
enum class DecoderPath : uint8_t {
  kPlain,       // one operation after the other; judges the others
  kFused,       // activations in 8 bits
  kFusedExact,  // activations in at least 15 bits
};

class Decoder {
 public:
  // `model` must outlive the decoder.
  Decoder(Backend& backend, const DenseModel& model, Compute compute);
  Decoder(Backend& backend, const QuantizedModel& model, Compute compute,
          DecoderPath path = DecoderPath::kPlain);

  [[nodiscard]] const ModelConfig& config() const { return config_; }
  [[nodiscard]] Backend& backend() const { return *backend_; }

  // The path taken, one line for the log.
  [[nodiscard]] std::string describe() const;
  // The compiled step for callers that want hidden states and logits in one call; null on the plain
  // path, and while a tap is set or a linear exchanged.
  [[nodiscard]] DecoderProgram* program() const {
    return tap_ || replaced_ > 0 ? nullptr : program_.get();
  }

  // Whether Batch::bare is understood: by compiled steps that say so.
  [[nodiscard]] bool runs_bare_rows() const {
    return program() != nullptr && program()->runs_bare_rows();
  }

  // Everything: hidden[m, hidden_size] after the final norm, on the backend. Appends to the cache.
  void forward(const Batch& batch, KvCache& cache, float* hidden);
  // logits[rows, vocab] of hidden[rows, hidden_size].
  void logits(const float* hidden, int64_t rows, float* logits);

  // The steps of forward() on the plain path, for callers that restart at a layer: x is the
  // residual stream [m, hidden_size].
  void embed(std::span<const int32_t> tokens, float* x);
  void run_layer(int32_t layer, const Batch& batch, KvCache& cache, float* x);
  void finish(const float* x, int64_t m, float* hidden);

  void set_tap(InputTap tap) { tap_ = std::move(tap); }
  // Puts another linear in a module's place and returns the one that stood there.
  LinearPointer exchange(const ModuleId& id, LinearPointer linear);
  // What a replacement needs to equal the original: the module's bias (host, [n] F32, or null) and
  // the arithmetic.
  [[nodiscard]] const float* bias_of(const ModuleId& id) const {
    return biases_[static_cast<size_t>(id.index())];
  }
  [[nodiscard]] Compute compute() const { return compute_; }

 private:
  void prepare_common(const std::vector<float>& final_norm);
  void compile(const QuantizedModel& model, DecoderPath path);
  float* scratch(int slot, int64_t floats);
  const int32_t* positions_of(const Batch& batch);

  Backend* backend_;
  ModelConfig config_;
  std::vector<DecoderLayer> layers_;
  LinearPointer embedding_;
  LinearPointer head_;
  DeviceBuffer final_norm_;
  DeviceBuffer inverse_frequencies_;
  struct DeviceRotation {
    DeviceBuffer signs_in, factor, signs_out;
    RotationView view;
  };
  std::unique_ptr<DeviceRotation> rotation_;
  std::vector<DeviceBuffer> scratch_;
  std::vector<int32_t> uploaded_positions_;      // what scratch holds of the last batch
  std::vector<std::vector<float>> host_biases_;  // F32 copies that prepared linears point to
  std::vector<const float*> biases_;             // by ModuleId::index()
  Compute compute_;
  InputTap tap_;
  // The compiled step, and host memory that it reads.
  std::vector<std::vector<float>> host_floats_;
  std::unique_ptr<DecoderProgram> program_;
  std::string why_not_fused_;
  std::vector<const PreparedLinear*> originals_;  // by ModuleId::index()
  int64_t replaced_ = 0;                          // linears that are not the originals
};

}  // namespace spear
