// The factors of a compensator, expanded to floats: row r of A [rank, k] or of B [rank, n], columns
// [begin, end).

typedef int8_t VecSigned __attribute__((vector_size(kWidth)));

static void expand_factor_row(const CompensatorView& ec, const void* factor, const uint16_t* scales,
                              int64_t r, int64_t columns, int64_t begin, int64_t end, float* out) {
  if (ec.factor_bits == 16) {
    const uint16_t* row = static_cast<const uint16_t*>(factor) + r * columns;
    for (int64_t j = begin; j < end; ++j) out[j - begin] = float_of_f16(row[j]);
    return;
  }
  const float scale = float_of_f16(scales[r]);
  if (ec.factor_bits == 8) {
    const int8_t* row = static_cast<const int8_t*>(factor) + r * columns;
    int64_t j = begin;
    for (; j + kWidth <= end; j += kWidth) {
      VecSigned bytes;
      __builtin_memcpy(&bytes, row + j, kWidth);
      store(out + (j - begin), to_float(__builtin_convertvector(bytes, VecI)) * scale);
    }
    for (; j < end; ++j) out[j - begin] = static_cast<float>(row[j]) * scale;
    return;
  }
  const uint8_t* row = static_cast<const uint8_t*>(factor) + r * ((columns + 1) / 2);
  for (int64_t j = begin; j < end; ++j) {
    const int code = row[j / 2] >> (j % 2 * 4) & 15;
    out[j - begin] = static_cast<float>(code > 7 ? code - 16 : code) * scale;
  }
}

static float dot_range(const float* x, const float* y, int64_t count) {
  VecF sums[2] = {};
  int64_t j = 0;
  for (; j + 2 * kWidth <= count; j += 2 * kWidth) {
    sums[0] += load(x + j) * load(y + j);
    sums[1] += load(x + j + kWidth) * load(y + j + kWidth);
  }
  float sum = sum_lanes(sums[0] + sums[1]);
  for (; j < count; ++j) sum += x[j] * y[j];
  return sum;
}

static void add_scaled_range(float factor, const float* x, float* y, int64_t count) {
  int64_t j = 0;
  for (; j + kWidth <= count; j += kWidth) store(y + j, load(y + j) + factor * load(x + j));
  for (; j < count; ++j) y[j] += factor * x[j];
}
