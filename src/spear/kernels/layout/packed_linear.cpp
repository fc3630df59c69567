#include "spear/kernels/layout/packed_linear.h"

#include <cstring>

#include "spear/base/check.h"
#include "spear/kernels/ref/quantized_view.h"

namespace spear {
namespace {

constexpr int32_t kColumnStep = 32;  // the smallest piece every kernel takes

int32_t rounded_up(int32_t value, int32_t step) {
  return (value + step - 1) / step * step;
}

bool is_per_channel(const QuantizedView& w) {
  return w.groups() == 1;
}

// Eight codes of a row as the layout's four bytes: column u beside column u + 4.
uint32_t interleaved(uint32_t nibbles) {
  const auto spread = [](uint32_t half) {
    half = (half | half << 8) & 0x00ff00ffu;
    return (half | half << 4) & 0x0f0f0f0fu;
  };
  return spread(nibbles & 0xffffu) | spread(nibbles >> 16) << 4;
}

// Eight codes of any width from column `j` on as nibbles; columns beyond k are 0.
uint32_t eight_nibbles(const QuantizedView& w, const uint8_t* row, int64_t j) {
  uint32_t nibbles = 0;
  for (int64_t u = 0; u < 8 && j + u < w.k; ++u)
    nibbles |= ref::code_at(row, w.bits, j + u) << (4 * u);
  return nibbles;
}

void pack_row4(const QuantizedView& w, const uint8_t* row, int32_t first, int32_t count,
               uint8_t* out) {
  const int32_t whole = w.bits == 4 ? (w.k - first) / 8 * 8 : 0;  // columns read a word at a time
  for (int32_t j = 0; j < count; j += 8) {
    uint32_t nibbles = 0;
    if (j + 8 <= whole)
      std::memcpy(&nibbles, row + (first + j) / 2, 4);
    else
      nibbles = eight_nibbles(w, row, first + j);
    const uint32_t word = interleaved(nibbles);
    std::memcpy(out + j / 8 * 128, &word, 4);
  }
}

void pack_row8(const QuantizedView& w, const uint8_t* row, int32_t first, int32_t count,
               uint8_t* out) {
  for (int32_t j = 0; j < count; j += 4) {
    uint32_t word = 0;
    if (w.bits == 8 && first + j + 4 <= w.k)
      std::memcpy(&word, row + first + j, 4);
    else
      for (int32_t u = 0; u < 4 && first + j + u < w.k; ++u)
        word |= ref::code_at(row, w.bits, first + j + u) << (8 * u);
    std::memcpy(out + j / 4 * 128, &word, 4);
  }
}

int8_t factor_code(const CompensatorView& ec, const void* factor, int64_t rank, int64_t column,
                   int64_t columns) {
  if (ec.factor_bits == 8) return static_cast<const int8_t*>(factor)[rank * columns + column];
  const uint8_t pair = static_cast<const uint8_t*>(factor)[rank * ((columns + 1) / 2) + column / 2];
  const int code = pair >> (column % 2 * 4) & 15;
  return static_cast<int8_t>(code > 7 ? code - 16 : code);
}

// The matrix and its row that stand in row i of a panel; row -1: none, beyond the last.
struct RowSource {
  const LinearSource* source;
  int64_t row;
};
RowSource row_source(const PackedPart& part, std::span<const LinearSource> sources, int64_t panel,
                     int32_t i) {
  const LinearSource* source = part.rows_per_panel == 16 && i >= 16 ? &sources[1] : &sources[0];
  const int64_t row = panel * part.rows_per_panel + i % part.rows_per_panel;
  return {source, row < part.n ? row : -1};
}

void pack_group(const PackedPart& part, std::span<const LinearSource> sources, int64_t panel,
                int32_t g, uint8_t* out) {
  uint8_t* tail = out + part.group_code_bytes;
  std::memset(out, 0, static_cast<size_t>(part.group_bytes));
  for (int32_t i = 0; i < kPanelRows; ++i) {
    const RowSource from = row_source(part, sources, panel, i);
    if (from.row < 0) continue;
    const QuantizedView& w = from.source->weight;
    const uint8_t* row = w.codes + static_cast<size_t>(from.row) * w.row_bytes();
    const auto pack_row = part.bits == 4 ? pack_row4 : pack_row8;
    pack_row(w, row, g * part.group, part.group, out + 4 * i);
    const uint16_t scale = w.scales[from.row * w.groups() + g];
    const uint16_t zero = f16_from_float(ref::zero_at(w, from.row, g));
    std::memcpy(tail + 2 * i, &scale, 2);
    std::memcpy(tail + 2 * (kPanelRows + i), &zero, 2);
  }
}

}  // namespace

std::string why_not_packed(const LinearSource& source) {
  const QuantizedView& w = source.weight;
  if (w.bits == 16) return "weights of 16 bits";
  if (w.bits > 8) return "weights of " + std::to_string(w.bits) + " bits";
  // 255 · 127 · k must fit the 32 bits of a sum.
  if (w.k > kMostPackedColumns) return "rows of " + std::to_string(w.k) + " columns";
  if (!is_per_channel(w) && w.group % kColumnStep != 0)
    return "groups of " + std::to_string(w.group) + " columns";
  if (source.ec.rank > kLargestPackedRank)
    return "a compensator of rank " + std::to_string(source.ec.rank);
  if (source.ec.rank > 0 && source.ec.factor_bits == 16) return "factors of 16 bits";
  if (source.ec.gate_hidden > kLargestPackedGate)
    return "a gate of " + std::to_string(source.ec.gate_hidden) + " hidden units";
  return {};
}

std::string why_not_paired(const LinearSource& first, const LinearSource& second) {
  for (const LinearSource* source : {&first, &second})
    if (std::string why = why_not_packed(*source); !why.empty()) return why;
  const QuantizedView& a = first.weight;
  const QuantizedView& b = second.weight;
  if ((a.bits > 4) != (b.bits > 4) || a.groups() != b.groups() || a.n != b.n || a.k != b.k)
    return "a partner of another width";
  return {};
}

PackedPart plan_part(std::span<const LinearSource> sources) {
  expects(sources.size() == 1 || sources.size() == 2);
  const QuantizedView& w = sources[0].weight;
  PackedPart part;
  part.n = w.n;
  part.k = w.k;
  part.columns = rounded_up(w.k, kColumnStep);
  part.bits = w.bits <= 4 ? 4 : 8;
  part.per_channel = is_per_channel(w);
  part.group = part.per_channel ? part.columns : w.group;
  part.rows_per_panel = kPanelRows / static_cast<int32_t>(sources.size());
  part.panels = (part.n + part.rows_per_panel - 1) / part.rows_per_panel;
  for (size_t half = 0; half < 2; ++half) {
    const LinearSource& source = sources[half % sources.size()];
    part.ranks[half] = rounded_up(source.ec.rank, 2);
    part.bias = part.bias || source.bias != nullptr;
  }
  part.group_code_bytes = int64_t{kPanelRows} * part.group * part.bits / 8;
  part.group_bytes = part.group_code_bytes + int64_t{kPanelRows} * 4;
  part.factor_offset = part.columns / part.group * part.group_bytes;
  part.bias_offset = part.factor_offset + rounded_up(16 * (part.ranks[0] + part.ranks[1]), 64);
  part.panel_bytes = part.bias_offset + (part.bias ? int64_t{kPanelRows} * 4 : 0);
  return part;
}

void pack_panel(const PackedPart& part, std::span<const LinearSource> sources, int64_t panel,
                uint8_t* out) {
  for (int32_t g = 0; g < part.columns / part.group; ++g)
    pack_group(part, sources, panel, g, out + g * part.group_bytes);
  std::memset(out + part.factor_offset, 0,
              static_cast<size_t>(part.panel_bytes - part.factor_offset));
  for (int32_t i = 0; i < kPanelRows; ++i) {
    const RowSource from = row_source(part, sources, panel, i);
    if (from.row < 0) continue;
    const CompensatorView& ec = from.source->ec;
    auto* b = reinterpret_cast<int8_t*>(out + part.factor_offset) +
              (i >= 16 ? 16 * part.ranks[0] : 0) + i % 16 * 2;
    for (int32_t r = 0; r < ec.rank; ++r)
      b[r / 2 * 32 + r % 2] = factor_code(ec, ec.b, r, from.row, part.n);
    if (from.source->bias != nullptr)
      std::memcpy(out + part.bias_offset + 4 * i, from.source->bias + from.row, 4);
  }
}

UnpackedPanel unpack_panel(const PackedPart& part, const uint8_t* panel) {
  UnpackedPanel out;
  out.codes.resize(static_cast<size_t>(kPanelRows) * static_cast<size_t>(part.columns));
  for (int32_t i = 0; i < kPanelRows; ++i)
    for (int32_t g = 0; g < part.columns / part.group; ++g) {
      const uint8_t* codes = panel + g * part.group_bytes;
      uint8_t* to = out.codes.data() + i * part.columns + g * part.group;
      for (int32_t j = 0; j < part.group; ++j) {
        if (part.bits == 8)
          to[j] = codes[j / 4 * 128 + 4 * i + j % 4];
        else
          to[j] = static_cast<uint8_t>(codes[j / 8 * 128 + 4 * i + j % 4] >> (j % 8 / 4 * 4) & 15);
      }
      uint16_t halves[2];
      std::memcpy(halves, codes + part.group_code_bytes + 2 * i, 2);
      std::memcpy(halves + 1, codes + part.group_code_bytes + 2 * (kPanelRows + i), 2);
      out.scales.push_back(float_from_f16(halves[0]));
      out.zeros.push_back(float_from_f16(halves[1]));
    }
  for (size_t half = 0; half < 2; ++half) {
    const auto* b = reinterpret_cast<const int8_t*>(panel + part.factor_offset) +
                    (half == 1 ? 16 * part.ranks[0] : 0);
    for (int32_t i = 0; i < 16; ++i)
      for (int32_t r = 0; r < part.ranks[half]; ++r)
        out.factors.push_back(b[r / 2 * 32 + 2 * i + r % 2]);
  }
  if (part.bias) {
    out.bias.resize(kPanelRows);
    std::memcpy(out.bias.data(), panel + part.bias_offset, kPanelRows * 4);
  }
  return out;
}

namespace {

// Byte of row i, column j: rows in fours (or what is left) take turns every 64 columns.
size_t rank_offset(int64_t rows, int64_t i, int64_t j, int64_t columns) {
  const int64_t quad = i / 4 * 4;
  const int64_t turn = rows - quad < 4 ? rows - quad : 4;
  return static_cast<size_t>(quad * columns + (j / 64 * turn + i - quad) * 64 + j % 64);
}

}  // namespace

void pack_ranks(std::span<const RankRow> rows, int32_t k, uint8_t* out) {
  const auto count = static_cast<int64_t>(rows.size());
  const int64_t columns = rank_columns(k);
  std::memset(out + count * columns, 0,
              packed_rank_bytes(count, k) - static_cast<size_t>(count * columns));
  auto* scales = reinterpret_cast<float*>(out + count * columns);
  for (int64_t i = 0; i < count; ++i) {
    const RankRow& row = rows[static_cast<size_t>(i)];
    for (int64_t j = 0; j < columns; ++j) {
      const int code = j < k ? factor_code(*row.ec, row.ec->a, row.rank, j, k) : 0;
      out[rank_offset(count, i, j, columns)] = static_cast<uint8_t>(code + 128);
    }
    scales[i] = float_from_f16(row.ec->a_scales[row.rank]);
  }
}

std::vector<int8_t> unpack_ranks(const uint8_t* packed, int64_t rows, int32_t k) {
  std::vector<int8_t> out;
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < k; ++j)
      out.push_back(static_cast<int8_t>(packed[rank_offset(rows, i, j, rank_columns(k))] - 128));
  return out;
}

}  // namespace spear
