#include "spear/model/gradients_student.h"

#include <algorithm>

#include "spear/base/check.h"
#include "spear/base/error.h"

namespace spear {
namespace {

std::vector<float> floats_of(const HostTensor& tensor) {
  std::vector<float> out(static_cast<size_t>(tensor.count()));
  if (tensor.dtype() == DType::kF32) {
    const auto values = tensor.as<float>();
    out.assign(values.begin(), values.end());
  } else {
    expects(tensor.dtype() == DType::kF16);
    const auto values = tensor.as<uint16_t>();
    std::transform(values.begin(), values.end(), out.begin(), float_from_f16);
  }
  return out;
}

// Appends spans and start values to a student.
class Builder {
 public:
  explicit Builder(StudentModel& student) : student_(student) {}

  int64_t add(std::string name, ParameterKind kind, int64_t module, int64_t rows, int64_t columns,
              std::span<const float> values) {
    expects(static_cast<int64_t>(values.size()) == rows * columns);
    ParameterSpan span;
    span.name = std::move(name);
    span.kind = kind;
    span.module = static_cast<int32_t>(module);
    span.offset = static_cast<int64_t>(student_.start.size());
    span.rows = rows;
    span.columns = columns;
    student_.start.insert(student_.start.end(), values.begin(), values.end());
    student_.spans.push_back(span);
    return span.offset;
  }

  int64_t add_norm(const std::string& name, const HostTensor& weight, int64_t width, bool wanted) {
    if (weight.empty() && !wanted) return -1;
    const std::vector<float> values =
        weight.empty() ? std::vector<float>(static_cast<size_t>(width), 1.0f) : floats_of(weight);
    return add(name, ParameterKind::kNorm, -1, 1, width, values);
  }

 private:
  StudentModel& student_;
};

void add_compensator(Builder& builder, StudentLinear& linear, const ModuleId& id,
                     const CompensatorValues& ec) {
  expects(ec.n == linear.n && ec.k == linear.k && ec.rank > 0);
  const std::string name = name_of(id);
  const int64_t module = id.index();
  linear.rank = ec.rank;
  linear.gate_hidden = ec.gate_hidden;
  linear.slots.a =
      builder.add(name + ".factor_a", ParameterKind::kFactorA, module, ec.rank, ec.k, ec.a);
  linear.slots.b =
      builder.add(name + ".factor_b", ParameterKind::kFactorB, module, ec.rank, ec.n, ec.b);
  if (ec.gate_hidden == 0) return;
  const int64_t hidden = ec.gate_hidden;
  linear.slots.w1 =
      builder.add(name + ".gate_w1", ParameterKind::kGateW1, module, hidden, ec.rank, ec.w1);
  linear.slots.b1 =
      builder.add(name + ".gate_b1", ParameterKind::kGateB1, module, 1, hidden, ec.b1);
  linear.slots.w2 =
      builder.add(name + ".gate_w2", ParameterKind::kGateW2, module, ec.rank, hidden, ec.w2);
  linear.slots.b2 =
      builder.add(name + ".gate_b2", ParameterKind::kGateB2, module, 1, ec.rank, ec.b2);
}

StudentLinear add_linear(Builder& builder, const QuantizedLinear& from, const ModuleId& id,
                         const StudentOptions& options,
                         const std::optional<CompensatorValues>& compensator) {
  const std::string name = name_of(id);
  if (from.weight.bits > 8)
    throw Failure(ErrorCode::kUnsupported,
                  name +
                      " is kept in 16 bits; only quantized linears (2 to 8 bits) can be "
                      "trained: quantize it first");
  UnpackedMatrix matrix = unpack(from.weight.view());
  StudentLinear linear;
  linear.n = matrix.n;
  linear.k = matrix.k;
  linear.bits = matrix.bits;
  linear.group = matrix.group;
  linear.symmetric = matrix.symmetric;
  linear.zero_kind = from.weight.zero_kind;
  linear.codes = std::move(matrix.codes);
  linear.scales = std::move(matrix.scales);
  const std::vector<float> ones(linear.scales.size(), 1.0f);
  linear.slots.scale = builder.add(name + ".scale", ParameterKind::kScale, id.index(), linear.n,
                                   linear.groups(), ones);
  if (!linear.symmetric)
    linear.slots.zero = builder.add(name + ".zero", ParameterKind::kZero, id.index(), linear.n,
                                    linear.groups(), matrix.zeros);
  if (!from.bias.empty() || options.row_bias) {
    const std::vector<float> bias = from.bias.empty()
                                        ? std::vector<float>(static_cast<size_t>(linear.n), 0.0f)
                                        : floats_of(from.bias);
    linear.slots.bias =
        builder.add(name + ".bias", ParameterKind::kBias, id.index(), 1, linear.n, bias);
  }
  if (compensator.has_value())
    add_compensator(builder, linear, id, *compensator);
  else if (from.compensator.has_value() && options.base_compensators)
    add_compensator(builder, linear, id, unpack(from.compensator->view(), linear.n, linear.k));
  return linear;
}

std::vector<float> slice(std::span<const float> values, int64_t offset, int64_t count) {
  const auto part = values.subspan(static_cast<size_t>(offset), static_cast<size_t>(count));
  return {part.begin(), part.end()};
}

void store_weight(const StudentLinear& linear, std::span<const float> values, KindSet trained,
                  QuantizedMatrix& out) {
  const bool zeros_move = !linear.symmetric && (trained & bit(ParameterKind::kZero)) != 0;
  if ((trained & bit(ParameterKind::kScale)) == 0 && !zeros_move) return;
  UnpackedMatrix matrix;
  matrix.n = linear.n;
  matrix.k = linear.k;
  matrix.bits = linear.bits;
  matrix.group = linear.group;
  matrix.symmetric = linear.symmetric;
  matrix.codes = linear.codes;
  const auto count = static_cast<int64_t>(linear.scales.size());
  matrix.scales = slice(values, linear.slots.scale, count);
  for (size_t i = 0; i < matrix.scales.size(); ++i) matrix.scales[i] *= linear.scales[i];
  matrix.zeros = linear.symmetric ? std::vector<float>(static_cast<size_t>(count),
                                                       static_cast<float>(1 << (linear.bits - 1)))
                                  : slice(values, linear.slots.zero, count);
  const ZeroKind real = linear.bits <= 4 ? ZeroKind::kU8 : ZeroKind::kF16;
  out = pack(matrix, zeros_move ? real : linear.zero_kind);
}

HostTensor f16_tensor(std::span<const float> values) {
  HostTensor tensor(Shape{static_cast<int64_t>(values.size())}, DType::kF16);
  std::transform(values.begin(), values.end(), tensor.as<uint16_t>().begin(), f16_from_float);
  return tensor;
}

HostTensor f32_tensor(std::span<const float> values) {
  HostTensor tensor(Shape{static_cast<int64_t>(values.size())}, DType::kF32);
  std::copy(values.begin(), values.end(), tensor.as<float>().begin());
  return tensor;
}

void store_norm(int64_t slot, int64_t width, std::span<const float> values, DType dtype,
                HostTensor& out) {
  if (slot < 0) return;
  const std::vector<float> weight = slice(values, slot, width);
  out = dtype == DType::kF16 ? f16_tensor(weight) : f32_tensor(weight);
}

}  // namespace

StudentModel make_student(const QuantizedModel& base, const StudentOptions& options,
                          const CompensatorList& compensators) {
  StudentModel student;
  student.base = &base;
  Builder builder(student);
  const ModelConfig& config = base.config;
  expects(compensators.empty() || compensators.size() == base.layers.size() * kModulesPerLayer);
  const std::optional<CompensatorValues> none;
  for (size_t l = 0; l < base.layers.size(); ++l) {
    const QuantizedLayer& from = base.layers[l];
    const std::string name = "layers." + std::to_string(l);
    StudentLayer layer;
    layer.input_norm = builder.add_norm(name + ".input_norm", from.input_norm, config.hidden_size,
                                        options.layer_norms);
    layer.post_attention_norm =
        builder.add_norm(name + ".post_attention_norm", from.post_attention_norm,
                         config.hidden_size, options.layer_norms);
    layer.q_norm = builder.add_norm(name + ".q_norm", from.q_norm, config.head_dim, false);
    layer.k_norm = builder.add_norm(name + ".k_norm", from.k_norm, config.head_dim, false);
    for (const Module m : kModules) {
      const ModuleId id{static_cast<int32_t>(l), m};
      const auto& given =
          compensators.empty() ? none : compensators[static_cast<size_t>(id.index())];
      layer.linears[static_cast<size_t>(m)] =
          add_linear(builder, from.linear(m), id, options, given);
    }
    student.layers.push_back(std::move(layer));
  }
  student.final_norm = builder.add_norm("final_norm", base.final_norm, config.hidden_size, true);
  return student;
}

CompensatorValues compensator_values(const StudentModel& student, std::span<const float> values,
                                     int64_t module_index) {
  const StudentLinear& linear = student.linear(module_index);
  expects(linear.rank > 0);
  const LinearSlots& slots = linear.slots;
  CompensatorValues ec;
  ec.rank = linear.rank;
  ec.n = linear.n;
  ec.k = linear.k;
  ec.gate_hidden = linear.gate_hidden;
  ec.a = slice(values, slots.a, int64_t{linear.rank} * linear.k);
  ec.b = slice(values, slots.b, int64_t{linear.rank} * linear.n);
  if (linear.gate_hidden == 0) return ec;
  const int64_t wide = int64_t{linear.gate_hidden} * linear.rank;
  ec.w1 = slice(values, slots.w1, wide);
  ec.b1 = slice(values, slots.b1, linear.gate_hidden);
  ec.w2 = slice(values, slots.w2, wide);
  ec.b2 = slice(values, slots.b2, linear.rank);
  return ec;
}

void store_student(const StudentModel& student, std::span<const float> values,
                   const StoreOptions& options, QuantizedModel& model) {
  expects(&model == student.base && values.size() == student.start.size());
  const KindSet trained = options.trained;
  for (int64_t index = 0; index < student.module_count(); ++index) {
    const StudentLinear& linear = student.linear(index);
    QuantizedLinear& out = model.layers[static_cast<size_t>(index / kModulesPerLayer)]
                               .linears[static_cast<size_t>(index % kModulesPerLayer)];
    store_weight(linear, values, trained, out.weight);
    if (linear.slots.bias >= 0 && (trained & bit(ParameterKind::kBias)) != 0)
      out.bias = f16_tensor(
          values.subspan(static_cast<size_t>(linear.slots.bias), static_cast<size_t>(linear.n)));
    if (linear.rank == 0 || !linear.compensate)
      out.compensator.reset();
    else
      out.compensator = pack(compensator_values(student, values, index), options.factor_bits);
  }
  if ((trained & bit(ParameterKind::kNorm)) == 0) return;
  const ModelConfig& config = model.config;
  for (size_t l = 0; l < student.layers.size(); ++l) {
    const StudentLayer& from = student.layers[l];
    QuantizedLayer& out = model.layers[l];
    store_norm(from.input_norm, config.hidden_size, values, DType::kF16, out.input_norm);
    store_norm(from.post_attention_norm, config.hidden_size, values, DType::kF16,
               out.post_attention_norm);
    store_norm(from.q_norm, config.head_dim, values, DType::kF32, out.q_norm);
    store_norm(from.k_norm, config.head_dim, values, DType::kF32, out.k_norm);
  }
  store_norm(student.final_norm, config.hidden_size, values, DType::kF32, model.final_norm);
}

}  // namespace spear
