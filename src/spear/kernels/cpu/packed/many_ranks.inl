// A x for many tokens: the rows of A become panels of their own, which the tiles of tokens read as
// they read weights, where one token alone would rather have its rows in fours.

// [columns / 4][16 rows][4 columns] of each panel of 16 rows.
static void widen_ranks(const uint8_t* packed, int64_t rows, int64_t columns, int64_t first,
                        uint8_t* panels) {
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t row = first + i;
    uint8_t* to = panels + row / 16 * 16 * columns + row % 16 * 4;
    const int64_t quad = i / 4 * 4;
    const int64_t turn = rows - quad < 4 ? rows - quad : 4;
    const uint8_t* from = packed + quad * columns + (i - quad) * 64;
    for (int64_t j = 0; j < columns; j += 64, from += 64 * turn)
      for (int64_t c = 0; c < 64; c += 4) __builtin_memcpy(to + (j + c) * 16, from + c, 4);
  }
}

template <int T>
static void project_tile(const InputShape& in, const QuantizedTokens& tokens, int64_t row,
                         const uint8_t* panel, int64_t valid, float* u, int64_t u_stride) {
  const int32_t blocks = pieces(in.columns, in.block);
  alignas(64) int32_t sums[T * 16];
  for (int32_t b = 0; b < blocks; ++b) {
    const int32_t from = blocks == 1 ? 0 : b * in.block;
    const int32_t to = blocks == 1 || from + in.block > in.columns ? in.columns : from + in.block;
    half_sums<T>(panel + from * 16, tokens.codes + row * in.columns + from, in.columns, to - from,
                 sums);
    for (int t = 0; t < T; ++t) {
      const float scale = tokens.scales[(row + t) * blocks + b];
      const int32_t count = 128 * tokens.counts[(row + t) * blocks + b];
      float* out = u + (row + t) / in.digits * u_stride;
      const bool start = b == 0 && (row + t) % in.digits == 0;
      for (int64_t i = 0; i < valid; ++i) {
        const auto sum = static_cast<float>(sums[t * 16 + i] - count);
        out[i] = start ? sum * scale : out[i] + sum * scale;
      }
    }
  }
}

static void project_tokens(const InputShape& in, const QuantizedTokens& tokens, int64_t begin,
                           int64_t end, const uint8_t* panels, const float* scales, int64_t rows,
                           float* u, int64_t u_stride) {
  for (int64_t first = 0; first < rows; first += 16) {
    const uint8_t* panel = panels + first * in.columns;
    const int64_t valid = rows - first < 16 ? rows - first : 16;
    int64_t row = begin * in.digits;
    const int64_t last = end * in.digits;
    for (; row + 4 <= last; row += 4)
      project_tile<4>(in, tokens, row, panel, valid, u + first, u_stride);
    for (; row < last; ++row) project_tile<1>(in, tokens, row, panel, valid, u + first, u_stride);
  }
  for (int64_t token = begin; token < end; ++token)
    for (int64_t r = 0; r < rows; ++r) u[token * u_stride + r] *= scales[r];
}
