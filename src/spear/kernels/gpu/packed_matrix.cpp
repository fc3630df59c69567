#include "spear/kernels/gpu/packed_matrix.h"

#include <algorithm>

#include "spear/base/check.h"
#include "spear/kernels/ref/quantized_view.h"

namespace spear::gpu {
namespace {

// Where input k of a row stands in a unit: which lane's 16 bytes, and the bit within them.
struct Place {
  int32_t lane, bit;
};

// Input i of the 8 that one word of 4-bit codes holds: products take pairs (0, 1), (2, 3), ... from
// the low and the high nibbles of two 16-bit halves.
constexpr int32_t kNibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};

Place place_of(int32_t bits, int32_t input) {
  if (bits == 16) return {input / 8, input % 8 * 16};
  const int32_t lane = input % 64 / 16;
  const int32_t within = input % 16;
  if (bits == 8) return {lane, within * 8};
  const int32_t word = input / 64 * 2 + within / 8;
  return {lane, word * 32 + kNibble[within % 8] * 4};
}

// The rows of the fused matrix: which part, and which of its rows.
struct Source {
  size_t part = 0;
  int32_t row = -1;  // -1: padding
};

template <class Part>
std::vector<Source> sources(std::span<const Part> parts, RowOrder order) {
  std::vector<Source> out;
  if (order == RowOrder::kInterleaved) {
    expects(parts.size() == 2 && parts[0].n == parts[1].n);
    for (int32_t row = 0; row < parts[0].n; ++row) {
      out.push_back({0, row});
      out.push_back({1, row});
    }
    return out;
  }
  for (size_t p = 0; p < parts.size(); ++p)
    for (int32_t row = 0; row < parts[p].n; ++row) out.push_back({p, row});
  return out;
}

// The finest grouping that the kernels know and that holds every part exactly.
PackedShape shape_for(std::span<const QuantizedView> parts) {
  PackedShape shape;
  shape.k = parts[0].k;
  bool four = true;
  bool eight = true;
  for (const QuantizedView& w : parts) {
    expects(w.k == shape.k);
    shape.n += w.n;
    const bool per_channel = w.groups() == 1;
    if (w.bits > 4 || (!per_channel && w.group % 64 != 0)) four = false;
    if (w.bits > 8 || !per_channel) eight = false;
    if (!per_channel) shape.group = w.group % 128 == 0 && shape.group != 64 ? 128 : 64;
  }
  shape.bits = four ? 4 : eight ? 8 : 16;
  if (shape.bits != 4) shape.group = 0;
  return shape;
}

void put_bits(uint8_t* at, int32_t bit, int32_t bits, uint32_t value) {
  if (bits == 4) {
    at[bit / 8] = static_cast<uint8_t>(at[bit / 8] | value << (bit % 8));
    return;
  }
  at[bit / 8] = static_cast<uint8_t>(value);
  if (bits == 16) at[bit / 8 + 1] = static_cast<uint8_t>(value >> 8);
}

void put_half(uint8_t* at, uint16_t value) {
  at[0] = static_cast<uint8_t>(value);
  at[1] = static_cast<uint8_t>(value >> 8);
}

uint16_t half_at(const uint8_t* at) {
  return static_cast<uint16_t>(at[0] | at[1] << 8);
}

void pack_row(const QuantizedView& w, int32_t from, int32_t row, PackedMatrix& m) {
  const PackedShape& s = m.shape;
  const size_t unit_bytes = static_cast<size_t>(s.unit_bytes());
  uint8_t* tile = m.units.data() + static_cast<size_t>(row / kTileRows) *
                                       static_cast<size_t>(s.units()) * unit_bytes;
  const uint8_t* codes = w.codes + static_cast<size_t>(from) * w.row_bytes();
  std::vector<float> values;
  if (s.bits == 16) {
    values.resize(static_cast<size_t>(s.k));
    dequantize_rows(w, from, from + 1, values.data());
  }
  for (int32_t j = 0; j < s.k; ++j) {
    const Place place = place_of(s.bits, j % s.unit_inputs());
    uint8_t* lane = tile + static_cast<size_t>(j / s.unit_inputs()) * unit_bytes +
                    (row % kTileRows * 4 + place.lane) * 16;
    const uint32_t value = s.bits == 16 ? f16_from_float(values[static_cast<size_t>(j)])
                                        : ref::code_at(codes, w.bits, j);
    put_bits(lane, place.bit, s.bits, value);
  }
  if (s.bits == 16) return;
  if (s.group == 0) {
    m.row_scales[static_cast<size_t>(row) * 2] = w.scales[from];
    m.row_scales[static_cast<size_t>(row) * 2 + 1] = f16_from_float(ref::zero_at(w, from, 0));
    return;
  }
  for (int32_t g = 0; g < s.k / s.group + (s.k % s.group != 0 ? 1 : 0); ++g) {
    const int32_t of = w.groups() == 1 ? 0 : g * s.group / w.group;
    const int32_t per_unit = s.unit_inputs() / s.group;
    uint8_t* pair = tile + static_cast<size_t>(g / per_unit) * unit_bytes + 512 +
                    (g % per_unit * kTileRows + row % kTileRows) * 4;
    put_half(pair, w.scales[static_cast<size_t>(from) * static_cast<size_t>(w.groups()) +
                            static_cast<size_t>(of)]);
    put_half(pair + 2, f16_from_float(ref::zero_at(w, from, of)));
  }
}

int32_t padded_width(int32_t ranks) {
  int32_t width = 8;
  while (width < ranks) width *= 2;
  return width;
}

int8_t factor_code(const CompensatorView& ec, const void* factor, int64_t i, int64_t j,
                   int64_t columns) {
  if (ec.factor_bits == 8) return static_cast<const int8_t*>(factor)[i * columns + j];
  const uint8_t pair = static_cast<const uint8_t*>(factor)[i * ((columns + 1) / 2) + j / 2];
  const int code = pair >> (j % 2 * 4) & 15;
  return static_cast<int8_t>(code > 7 ? code - 16 : code);
}

}  // namespace

PackedMatrix pack_matrices(std::span<const QuantizedView> parts, RowOrder order) {
  expects(!parts.empty());
  PackedMatrix out;
  out.shape = shape_for(parts);
  out.units.assign(out.shape.bytes(), 0);
  if (out.shape.group == 0 && out.shape.bits != 16)
    out.row_scales.assign(static_cast<size_t>(out.shape.tiles()) * kTileRows * 2, 0);
  const std::vector<Source> rows = sources(parts, order);
  for (size_t row = 0; row < rows.size(); ++row)
    pack_row(parts[rows[row].part], rows[row].row, static_cast<int32_t>(row), out);
  for (const QuantizedView& w : parts) out.expanded |= out.shape.bits == 16 && w.bits != 16;
  return out;
}

float packed_value(const PackedMatrix& m, int32_t row, int32_t column) {
  const PackedShape& s = m.shape;
  const uint8_t* unit =
      m.units.data() + (static_cast<size_t>(row / kTileRows) * static_cast<size_t>(s.units()) +
                        static_cast<size_t>(column / s.unit_inputs())) *
                           static_cast<size_t>(s.unit_bytes());
  const int32_t input = column % s.unit_inputs();
  const Place place = place_of(s.bits, input);
  const uint8_t* lane = unit + (row % kTileRows * 4 + place.lane) * 16;
  if (s.bits == 16) return float_from_f16(half_at(lane + place.bit / 8));
  const int code = s.bits == 8 ? lane[place.bit / 8] : lane[place.bit / 8] >> (place.bit % 8) & 15;
  uint16_t scale = 0;
  uint16_t zero = 0;
  if (s.group == 0) {
    scale = m.row_scales[static_cast<size_t>(row) * 2];
    zero = m.row_scales[static_cast<size_t>(row) * 2 + 1];
  } else {
    const uint8_t* pair = unit + 512 + (input / s.group * kTileRows + row % kTileRows) * 4;
    scale = half_at(pair);
    zero = half_at(pair + 2);
  }
  return (static_cast<float>(code) - float_from_f16(zero)) * float_from_f16(scale);
}

bool pack_compensators(std::span<const CompensatorView> parts, std::span<const QuantizedView> of,
                       RowOrder order, PackedCompensators* out) {
  expects(parts.size() == of.size());
  PackedCompensators packed;
  packed.order = order;
  int32_t ranks = 0;
  int32_t widest = 0;
  int32_t rows = 0;
  for (size_t p = 0; p < parts.size(); ++p) {
    const CompensatorView& ec = parts[p];
    if (ec.rank > 0 && ec.factor_bits == 16) return false;
    packed.modules.push_back({order == RowOrder::kStacked ? rows : static_cast<int32_t>(p), ec.rank,
                              ec.rank > 0 ? ec.gate_hidden : 0, ranks, 0});
    ranks += ec.rank;
    rows += of[p].n;
    widest = std::max(widest, ec.rank);
  }
  if (ranks == 0) {
    *out = {};
    return true;
  }
  if (ranks > 512) return false;
  const int32_t k = of[0].k;
  packed.width = padded_width(ranks);
  packed.b_stride = (widest + 3) / 4 * 4;
  const auto width = static_cast<size_t>(packed.width);
  packed.a.assign(static_cast<size_t>(k) * width, 0);
  packed.b.assign(static_cast<size_t>(rows) * static_cast<size_t>(packed.b_stride), 0);
  packed.a_scales.assign(width, 0.0f);
  packed.b_scales.assign(width, 0.0f);
  for (size_t p = 0; p < parts.size(); ++p) {
    const CompensatorView& ec = parts[p];
    PackedModule& module = packed.modules[p];
    for (int32_t r = 0; r < ec.rank; ++r) {
      const auto at = static_cast<size_t>(module.offset + r);
      packed.a_scales[at] = float_from_f16(ec.a_scales[r]);
      packed.b_scales[at] = float_from_f16(ec.b_scales[r]);
      for (int32_t j = 0; j < k; ++j)
        packed.a[static_cast<size_t>(j) * width + at] = factor_code(ec, ec.a, r, j, k);
      for (int32_t i = 0; i < of[p].n; ++i) {
        const int32_t row =
            order == RowOrder::kStacked ? module.first_row + i : 2 * i + module.first_row;
        packed.b[static_cast<size_t>(row) * static_cast<size_t>(packed.b_stride) +
                 static_cast<size_t>(r)] = factor_code(ec, ec.b, r, i, of[p].n);
      }
    }
    if (module.hidden == 0) continue;
    module.gate = static_cast<int32_t>(packed.gate.size());
    const auto wide = static_cast<size_t>(ec.gate_hidden) * static_cast<size_t>(ec.rank);
    packed.gate.insert(packed.gate.end(), ec.w1, ec.w1 + wide);
    packed.gate.insert(packed.gate.end(), ec.b1, ec.b1 + ec.gate_hidden);
    packed.gate.insert(packed.gate.end(), ec.w2, ec.w2 + wide);
    packed.gate.insert(packed.gate.end(), ec.b2, ec.b2 + ec.rank);
  }
  *out = std::move(packed);
  return true;
}

}  // namespace spear::gpu
