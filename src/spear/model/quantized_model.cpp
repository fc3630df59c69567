#include "spear/model/quantized_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include "spear/base/check.h"

namespace spear {
namespace {

HostBuffer f16_buffer(std::span<const float> values) {
  HostBuffer buffer(values.size() * 2);
  auto* out = buffer.as<uint16_t>();
  for (size_t i = 0; i < values.size(); ++i) out[i] = f16_from_float(values[i]);
  return buffer;
}

void append_f16(uint16_t*& out, std::span<const float> values) {
  for (const float value : values) *out++ = f16_from_float(value);
}

std::vector<float> take_f16(const uint16_t* in, size_t count) {
  std::vector<float> out(count);
  for (size_t i = 0; i < count; ++i) out[i] = float_from_f16(in[i]);
  return out;
}

// One row of codes as a little-endian bit stream.
void pack_row(const uint8_t* codes, int32_t k, int32_t bits, uint8_t* out, size_t row_bytes) {
  std::memset(out, 0, row_bytes);
  for (int32_t j = 0; j < k; ++j) {
    const size_t bit = static_cast<size_t>(j) * static_cast<size_t>(bits);
    const uint32_t shifted = static_cast<uint32_t>(codes[j]) << (bit % 8);
    out[bit / 8] = static_cast<uint8_t>(out[bit / 8] | (shifted & 0xffu));
    if (shifted > 0xffu) out[bit / 8 + 1] = static_cast<uint8_t>(out[bit / 8 + 1] | (shifted >> 8));
  }
}

void unpack_row(const uint8_t* in, int32_t k, int32_t bits, uint8_t* codes) {
  const uint32_t mask = (1u << bits) - 1u;
  for (int32_t j = 0; j < k; ++j) {
    const size_t bit = static_cast<size_t>(j) * static_cast<size_t>(bits);
    uint32_t word = in[bit / 8];
    if (bit % 8 + static_cast<size_t>(bits) > 8)
      word |= static_cast<uint32_t>(in[bit / 8 + 1]) << 8;
    codes[j] = static_cast<uint8_t>((word >> (bit % 8)) & mask);
  }
}

HostBuffer pack_zeros(const UnpackedMatrix& m, ZeroKind kind, const QuantizedView& shape) {
  HostBuffer buffer(shape.zero_bytes());
  switch (kind) {
    case ZeroKind::kNone:
      break;
    case ZeroKind::kU4: {
      auto* out = buffer.as<uint8_t>();
      std::memset(out, 0, buffer.bytes());
      for (size_t i = 0; i < m.zeros.size(); ++i) {
        const float zero = m.zeros[i];
        expects(zero >= 0 && zero <= 15 && zero == std::round(zero));
        out[i / 2] =
            static_cast<uint8_t>(out[i / 2] | (static_cast<uint32_t>(zero) << (i % 2 * 4)));
      }
      break;
    }
    case ZeroKind::kU8: {
      auto* out = buffer.as<uint8_t>();
      for (size_t i = 0; i < m.zeros.size(); ++i)
        out[i] = static_cast<uint8_t>(std::clamp(std::nearbyint(m.zeros[i] * 16.0f), 0.0f, 255.0f));
      break;
    }
    case ZeroKind::kF16: {
      auto* out = buffer.as<uint16_t>();
      for (size_t i = 0; i < m.zeros.size(); ++i) out[i] = f16_from_float(m.zeros[i]);
      break;
    }
  }
  return buffer;
}

float zero_at(const QuantizedView& view, size_t i) {
  switch (view.zero_kind) {
    case ZeroKind::kNone:
      return static_cast<float>(1 << (view.bits - 1));
    case ZeroKind::kU4: {
      const uint8_t byte = static_cast<const uint8_t*>(view.zeros)[i / 2];
      return static_cast<float>(byte >> (i % 2 * 4) & 15);
    }
    case ZeroKind::kU8:
      return static_cast<float>(static_cast<const uint8_t*>(view.zeros)[i]) / 16.0f;
    case ZeroKind::kF16:
      return float_from_f16(static_cast<const uint16_t*>(view.zeros)[i]);
  }
  return 0;
}

// Symmetric rounding of one rank row; returns the F16 scale's bits.
uint16_t round_factor_row(const float* row, int32_t count, int32_t bits, uint8_t* out) {
  const auto limit = static_cast<float>((1 << (bits - 1)) - 1);
  float largest = 0;
  for (int32_t j = 0; j < count; ++j) largest = std::max(largest, std::fabs(row[j]));
  const uint16_t scale_bits = f16_from_float(largest / limit);
  const float scale = float_from_f16(scale_bits);
  const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
  const size_t bytes =
      bits == 8 ? static_cast<size_t>(count) : (static_cast<size_t>(count) + 1) / 2;
  std::memset(out, 0, bytes);
  for (int32_t j = 0; j < count; ++j) {
    const auto code =
        static_cast<int32_t>(std::clamp(std::nearbyint(row[j] * inverse), -limit, limit));
    if (bits == 8)
      out[j] = static_cast<uint8_t>(code);
    else
      out[j / 2] =
          static_cast<uint8_t>(out[j / 2] | static_cast<uint8_t>((code & 15) << (j % 2 * 4)));
  }
  return scale_bits;
}

size_t factor_row_bytes(int32_t count, int32_t bits) {
  return bits == 16 ? static_cast<size_t>(count) * 2
                    : (static_cast<size_t>(count) * static_cast<size_t>(bits) + 7) / 8;
}

void pack_factor(std::span<const float> values, int32_t rank, int32_t count, int32_t bits,
                 HostBuffer& out, HostBuffer& scales) {
  if (bits == 16) {
    out = f16_buffer(values);
    scales = HostBuffer();
    return;
  }
  const size_t stride = factor_row_bytes(count, bits);
  out = HostBuffer(stride * static_cast<size_t>(rank));
  scales = HostBuffer(static_cast<size_t>(rank) * 2);
  for (int32_t r = 0; r < rank; ++r)
    scales.as<uint16_t>()[r] =
        round_factor_row(values.data() + static_cast<size_t>(r) * static_cast<size_t>(count), count,
                         bits, out.as<uint8_t>() + static_cast<size_t>(r) * stride);
}

std::vector<float> unpack_factor(const void* data, const uint16_t* scales, int32_t rank,
                                 int32_t count, int32_t bits) {
  std::vector<float> out(static_cast<size_t>(rank) * static_cast<size_t>(count));
  const auto* bytes = static_cast<const uint8_t*>(data);
  const size_t stride = factor_row_bytes(count, bits);
  for (int32_t r = 0; r < rank; ++r) {
    const uint8_t* row = bytes + static_cast<size_t>(r) * stride;
    float* values = out.data() + static_cast<size_t>(r) * static_cast<size_t>(count);
    for (int32_t j = 0; j < count; ++j) {
      if (bits == 16)
        values[j] = float_from_f16(reinterpret_cast<const uint16_t*>(row)[j]);
      else if (bits == 8)
        values[j] = float_from_f16(scales[r]) * static_cast<float>(static_cast<int8_t>(row[j]));
      else
        values[j] =
            float_from_f16(scales[r]) *
            static_cast<float>(static_cast<int8_t>(row[j / 2] << (j % 2 == 0 ? 4 : 0)) >> 4);
    }
  }
  return out;
}

}  // namespace

QuantizedMatrix pack(const UnpackedMatrix& m, ZeroKind zero_kind) {
  QuantizedMatrix out;
  out.n = m.n;
  out.k = m.k;
  out.bits = m.bits;
  out.group = m.group;
  out.zero_kind = m.symmetric ? ZeroKind::kNone : zero_kind;
  const QuantizedView shape = out.view();
  expects(m.group > 0 && m.k % m.group == 0 &&
          m.codes.size() == static_cast<size_t>(m.n) * static_cast<size_t>(m.k));
  expects(m.scales.size() == shape.scale_count() && m.zeros.size() == shape.scale_count());
  out.codes = HostBuffer(shape.code_bytes());
  for (int64_t i = 0; i < m.n; ++i)
    pack_row(m.codes.data() + i * m.k, m.k, m.bits,
             out.codes.as<uint8_t>() + static_cast<size_t>(i) * shape.row_bytes(),
             shape.row_bytes());
  out.scales = f16_buffer(m.scales);
  out.zeros = pack_zeros(m, out.zero_kind, shape);
  return out;
}

UnpackedMatrix unpack(const QuantizedView& view) {
  expects(view.bits <= 8);
  UnpackedMatrix m;
  m.n = view.n;
  m.k = view.k;
  m.bits = view.bits;
  m.group = view.group;
  m.symmetric = view.zero_kind == ZeroKind::kNone;
  m.codes.resize(static_cast<size_t>(view.n) * static_cast<size_t>(view.k));
  for (int64_t i = 0; i < view.n; ++i)
    unpack_row(view.codes + static_cast<size_t>(i) * view.row_bytes(), view.k, view.bits,
               m.codes.data() + i * view.k);
  m.scales = take_f16(view.scales, view.scale_count());
  m.zeros.resize(view.scale_count());
  for (size_t i = 0; i < m.zeros.size(); ++i) m.zeros[i] = zero_at(view, i);
  return m;
}

QuantizedMatrix keep_bf16(TensorView weight) {
  QuantizedMatrix out;
  out.n = static_cast<int32_t>(weight.rows());
  out.k = static_cast<int32_t>(weight.columns());
  out.bits = 16;
  out.group = out.k;
  out.zero_kind = ZeroKind::kNone;
  const auto count = static_cast<size_t>(weight.shape.count());
  out.codes = HostBuffer(count * 2);
  auto* bits = out.codes.as<uint16_t>();
  if (weight.dtype == DType::kBF16) {
    std::memcpy(bits, weight.data, count * 2);
  } else {
    expects(weight.dtype == DType::kF32);
    for (size_t i = 0; i < count; ++i)
      bits[i] = bf16_from_float(static_cast<const float*>(weight.data)[i]);
  }
  return out;
}

CompensatorView ErrorCompensator::view() const {
  CompensatorView v;
  v.rank = rank;
  v.factor_bits = factor_bits;
  v.a = a.data();
  v.b = b.data();
  v.a_scales = a_scales.as<uint16_t>();
  v.b_scales = b_scales.as<uint16_t>();
  v.gate_hidden = gate_hidden;
  if (gate_hidden > 0) {
    const size_t wide = static_cast<size_t>(gate_hidden) * static_cast<size_t>(rank);
    v.w1 = gate.as<uint16_t>();
    v.b1 = v.w1 + wide;
    v.w2 = v.b1 + gate_hidden;
    v.b2 = v.w2 + wide;
  }
  return v;
}

ErrorCompensator pack(const CompensatorValues& values, int32_t factor_bits) {
  expects(factor_bits == 4 || factor_bits == 8 || factor_bits == 16);
  ErrorCompensator ec;
  ec.rank = values.rank;
  ec.n = values.n;
  ec.k = values.k;
  ec.factor_bits = factor_bits;
  ec.gate_hidden = values.gate_hidden;
  pack_factor(values.a, values.rank, values.k, factor_bits, ec.a, ec.a_scales);
  pack_factor(values.b, values.rank, values.n, factor_bits, ec.b, ec.b_scales);
  if (values.gate_hidden > 0) {
    ec.gate =
        HostBuffer((values.w1.size() + values.b1.size() + values.w2.size() + values.b2.size()) * 2);
    auto* out = ec.gate.as<uint16_t>();
    for (const auto* part : {&values.w1, &values.b1, &values.w2, &values.b2})
      append_f16(out, *part);
  }
  return ec;
}

CompensatorValues unpack(const CompensatorView& view, int32_t n, int32_t k) {
  CompensatorValues values;
  values.rank = view.rank;
  values.n = n;
  values.k = k;
  values.gate_hidden = view.gate_hidden;
  values.a = unpack_factor(view.a, view.a_scales, view.rank, k, view.factor_bits);
  values.b = unpack_factor(view.b, view.b_scales, view.rank, n, view.factor_bits);
  if (view.gate_hidden > 0) {
    const size_t wide = static_cast<size_t>(view.gate_hidden) * static_cast<size_t>(view.rank);
    values.w1 = take_f16(view.w1, wide);
    values.b1 = take_f16(view.b1, static_cast<size_t>(view.gate_hidden));
    values.w2 = take_f16(view.w2, wide);
    values.b2 = take_f16(view.b2, static_cast<size_t>(view.rank));
  }
  return values;
}

ByteCount count_bytes(const QuantizedModel& model) {
  ByteCount bytes;
  for (const QuantizedLayer& layer : model.layers) {
    bytes.norms += layer.input_norm.bytes() + layer.post_attention_norm.bytes() +
                   layer.q_norm.bytes() + layer.k_norm.bytes();
    for (const QuantizedLinear& linear : layer.linears) {
      bytes.weights += linear.weight.codes.bytes();
      bytes.scales += linear.weight.scales.bytes();
      bytes.zeros += linear.weight.zeros.bytes();
      bytes.biases += linear.bias.bytes();
      if (linear.compensator) bytes.compensators += linear.compensator->bytes();
    }
  }
  bytes.norms += model.final_norm.bytes();
  bytes.embedding = model.embedding.bytes();
  bytes.head = model.head.bytes();
  if (model.rotation)  // stored as F32 factor and 8-bit signs
    bytes.other = model.rotation->factor.size() * sizeof(float) + model.rotation->signs_in.size() +
                  model.rotation->signs_out.size();
  return bytes;
}

size_t plain_w4_bytes(const ModelConfig& config) {
  size_t bytes = 0;
  for (const Module module : kModules) {
    const auto n = static_cast<size_t>(out_features(config, module));
    const auto k = static_cast<size_t>(in_features(config, module));
    bytes += n * ((k * 4 + 7) / 8) + n * 2 + (n + 1) / 2;  // codes, F16 scales, 4-bit zeros
    if (config.attention_bias && input_site(module) == InputSite::kAttention) bytes += n * 2;
  }
  const auto hidden = static_cast<size_t>(config.hidden_size);
  bytes += 2 * hidden * 2 + (config.qk_norm ? 2 * static_cast<size_t>(config.head_dim) * 2 : 0);
  bytes *= static_cast<size_t>(config.num_hidden_layers);
  const auto vocab = static_cast<size_t>(config.vocab_size);
  bytes += vocab * (hidden + 2) + hidden * 4;  // the head: 8 bits and an F16 scale a row
  if (config.tie_word_embeddings) return bytes;
  const size_t groups = vocab * (hidden % 32 == 0 ? hidden / 32 : 1);
  return bytes + vocab * ((hidden * 4 + 7) / 8) + groups * 2 + (groups + 1) / 2;
}

}  // namespace spear
