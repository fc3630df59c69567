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

template <int R>
struct Rows {
  static constexpr int value = R;
};
// Rows of codes that pass over a panel of A together.
static constexpr int kRankRows = kMostRows >= 8 ? 8 : 4;

// `T` rows of codes are T / digits tokens, whose sums with a panel's rows go to u.
template <int T>
static void project_tile(const InputShape& in, const QuantizedTokens& tokens, int64_t row,
                         const uint8_t* panel, const float* a_scales, int64_t valid, float* u,
                         int64_t u_stride) {
  const int32_t blocks = pieces(in.columns, in.block);
  alignas(64) int32_t sums[T * 16];
  alignas(64) float values[T * 16] = {};
  for (int32_t b = 0; b < blocks; ++b) {
    const int32_t from = blocks == 1 ? 0 : b * in.block;
    const int32_t to = blocks == 1 || from + in.block > in.columns ? in.columns : from + in.block;
    half_sums<T>(panel + from * 16, tokens.codes + row * in.columns + from, in.columns, to - from,
                 sums);
    for (int t = 0; t < T; ++t) {
      const float scale = tokens.scales[(row + t) * blocks + b];
      const int32_t count = 128 * tokens.counts[(row + t) * blocks + b];
      float* value = values + t / in.digits * 16;
#pragma GCC unroll 4
      for (int i = 0; i < 16; i += kWidth)
        store(value + i, load(value + i) + to_float(load_ints(sums + t * 16 + i) - count) * scale);
    }
  }
  for (int t = 0; t < T / in.digits; ++t) {
    float* out = u + (row / in.digits + t) * u_stride;
    for (int64_t i = 0; i < valid; ++i) out[i] = values[t * 16 + i] * a_scales[i];
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
    const auto tiles = [&](auto rows_of_tile) {
      constexpr int kRows = decltype(rows_of_tile)::value;
      for (; row + kRows <= last; row += kRows)
        project_tile<kRows>(in, tokens, row, panel, scales + first, valid, u + first, u_stride);
    };
    tiles(Rows<kRankRows>());
    tiles(Rows<4>());
    tiles(Rows<2>());
    if (in.digits == 1) tiles(Rows<1>());
  }
}
