// Fills a DenseModel from a checkpoint: each matrix row by row, threaded over rows, with
// llama.cpp's interleaving of q and k undone on the way.
#include <atomic>
#include <cmath>
#include <cstring>

#include <fmt/format.h>

#include "spear/model/checkpoint.h"
#include "spear/model/modules.h"

namespace spear {
namespace {

// Where our row stands in the file. Ours: in each head the first halves of the pairs, then the
// second halves; the file's: pair after pair.
int64_t stored_row(const StoredTensor& tensor, int64_t row) {
  if (tensor.interleaved_heads == 0) return row;
  const int64_t head_dim = tensor.shape[0] / tensor.interleaved_heads;
  const int64_t half = head_dim / 2;
  const int64_t within = row % head_dim;
  return row - within + 2 * (within % half) + within / half;
}

// Values [columns] to one row of `out`; false when one of them is not finite.
bool store_row(const float* values,  // [columns]
               int64_t row, int64_t columns, MutableTensorView out) {
  bool finite = true;
  if (out.dtype == DType::kF32) {
    std::memcpy(static_cast<float*>(out.data) + row * columns, values,
                static_cast<size_t>(columns) * sizeof(float));
    for (int64_t i = 0; i < columns; ++i) finite &= std::isfinite(values[i]);
    return finite;
  }
  uint16_t* bits = static_cast<uint16_t*>(out.data) + row * columns;
  for (int64_t i = 0; i < columns; ++i) {
    bits[i] = bf16_from_float(values[i]);
    finite &= std::isfinite(values[i]);
  }
  return finite;
}

class Loader {
 public:
  Loader(const Checkpoint& checkpoint, ThreadPool& pool) : checkpoint_(checkpoint), pool_(pool) {}

  HostTensor matrix(const std::string& name, DType dtype) {
    const StoredTensor& tensor = stored(name);
    const int64_t columns = tensor.shape[1];
    const int64_t stride = row_bytes(tensor.type, columns);
    HostTensor out(tensor.shape, dtype);
    const MutableTensorView view = out.mutable_view();
    std::atomic<int64_t> bad_row = -1;
    const int64_t grain = std::max<int64_t>(1, 65536 / columns);
    pool_.parallel_for(tensor.shape[0], grain, [&](int64_t begin, int64_t end) {
      std::vector<float> values(static_cast<size_t>(columns));
      for (int64_t row = begin; row < end; ++row) {
        dequantize_rows(tensor.type, 1, columns,
                        tensor.bytes.data() + stored_row(tensor, row) * stride, values.data());
        if (!store_row(values.data(), row, columns, view)) bad_row = row;
      }
    });
    tensor.file->release(tensor.bytes);  // else the model would be in memory twice
    if (bad_row >= 0) refuse_value(tensor, fmt::format("row {}", bad_row.load()));
    return out;
  }

  // Norms and biases: F32, whole.
  HostTensor vector(const std::string& name) {
    const StoredTensor& tensor = stored(name);
    const int64_t count = tensor.shape[0];
    std::vector<float> values(static_cast<size_t>(count));
    dequantize_rows(tensor.type, 1, count, tensor.bytes.data(), values.data());
    HostTensor out(tensor.shape, DType::kF32);
    const std::span<float> to = out.as<float>();
    for (int64_t i = 0; i < count; ++i) {
      const float value = values[static_cast<size_t>(stored_row(tensor, i))];
      if (!std::isfinite(value)) refuse_value(tensor, fmt::format("element {}", i));
      to[static_cast<size_t>(i)] = value;
    }
    return out;
  }

 private:
  const StoredTensor& stored(const std::string& name) const {
    const StoredTensor* tensor = checkpoint_.find(name);
    expects(tensor != nullptr);  // Checkpoint::open looked
    // Reading on past the end of a file that was cut since it was opened would kill the process.
    if (tensor->file->shrunk())
      throw Failure(ErrorCode::kIo, fmt::format("{}: became shorter while it was read",
                                                tensor->file->path().string()));
    return *tensor;
  }

  [[noreturn]] static void refuse_value(const StoredTensor& tensor, const std::string& where) {
    throw Failure(ErrorCode::kBadFile,
                  fmt::format("{}: {} holds a value that is not finite ({})", tensor.name, where,
                              tensor.file->path().filename().string()));
  }

  const Checkpoint& checkpoint_;
  ThreadPool& pool_;
};

DenseLayer load_layer(const ModelConfig& config, int32_t layer, DType dtype, Loader& loader) {
  const std::string prefix = fmt::format("layers.{}.", layer);
  DenseLayer out;
  out.input_norm = loader.vector(prefix + "input_layernorm.weight");
  out.post_attention_norm = loader.vector(prefix + "post_attention_layernorm.weight");
  if (config.qk_norm) {
    out.q_norm = loader.vector(prefix + "self_attn.q_norm.weight");
    out.k_norm = loader.vector(prefix + "self_attn.k_norm.weight");
  }
  for (const Module module : kModules) {
    const std::string name = name_of(ModuleId{layer, module});
    out.linear(module).weight = loader.matrix(name + ".weight", dtype);
    const bool qkv = module == Module::kQ || module == Module::kK || module == Module::kV;
    if (qkv && config.attention_bias) out.linear(module).bias = loader.vector(name + ".bias");
  }
  return out;
}

}  // namespace

DenseModel load_dense(const Checkpoint& checkpoint, DType dtype, ThreadPool& pool,
                      Progress& progress) {
  expects(dtype == DType::kF32 || dtype == DType::kBF16);
  const ModelConfig& config = checkpoint.config();
  Loader loader(checkpoint, pool);
  DenseModel model;
  model.config = config;
  model.content_hash = value_or_throw(checkpoint.content_hash());
  progress.begin("loading", config.num_hidden_layers);
  model.embedding = loader.matrix("embed_tokens.weight", dtype);
  if (!config.tie_word_embeddings) model.head = loader.matrix("lm_head.weight", dtype);
  model.final_norm = loader.vector("norm.weight");
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    if (progress.stop_requested()) throw Failure(ErrorCode::kInterrupted, "stopped while loading");
    model.layers.push_back(load_layer(config, static_cast<int32_t>(layer), dtype, loader));
    progress.advance(1);
  }
  progress.end();
  return model;
}

}  // namespace spear
