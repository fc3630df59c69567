#include <vector>

#include "spear/kernels/ref/quantized_view.h"
#include "spear/kernels/w4_linear.h"

namespace spear {
namespace {

void dequantize_row(const QuantizedView& w, int64_t row, float* out) {
  const uint8_t* codes = w.codes + static_cast<size_t>(row) * w.row_bytes();
  if (w.bits == 16) {
    for (int64_t j = 0; j < w.k; ++j)
      out[j] = float_from_bf16(static_cast<uint16_t>(codes[2 * j] | codes[2 * j + 1] << 8));
    return;
  }
  const int64_t group = w.k / w.groups();
  for (int64_t g = 0; g < w.groups(); ++g) {
    const float zero = ref::zero_at(w, row, g);
    const float scale = ref::scale_at(w, row, g);
    for (int64_t j = g * group; j < (g + 1) * group; ++j)
      out[j] = (static_cast<float>(ref::code_at(codes, w.bits, j)) - zero) * scale;
  }
}

}  // namespace

void dequantize_rows(const QuantizedView& w, int64_t row_begin, int64_t row_end, float* out) {
  for (int64_t row = row_begin; row < row_end; ++row)
    dequantize_row(w, row, out + (row - row_begin) * w.k);
}

void dequantize_rows_bf16(const QuantizedView& w, int64_t row_begin, int64_t row_end,
                          uint16_t* out) {
  std::vector<float> values(static_cast<size_t>(w.k));
  for (int64_t row = row_begin; row < row_end; ++row) {
    dequantize_row(w, row, values.data());
    for (int64_t j = 0; j < w.k; ++j) out[(row - row_begin) * w.k + j] = bf16_from_float(values[j]);
  }
}

}  // namespace spear
