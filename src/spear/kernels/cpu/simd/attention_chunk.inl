// Entry points of attention: the loop for the cache's type, and the merging of chunks.

static int64_t attention_scratch_floats(int64_t rows, int64_t head_dim) {
  const int64_t floats = float_tile_floats(rows, head_dim);
  const int64_t codes = code_tile_floats(rows, head_dim);
  return floats > codes ? floats : codes;
}

static void attention_tile(const AttentionTile& tile) {
  if (tile.keys.type == DType::kI8)
    attention_code_tile(tile);
  else
    attention_float_tile(tile);
}

static int64_t attention_chunk_floats(int64_t queries, int64_t head_dim) {
  const int64_t floats = float_chunk_floats(queries, head_dim);
  const int64_t codes = code_chunk_floats(queries, head_dim);
  return floats > codes ? floats : codes;
}

static void attention_chunk(const AttentionChunk& a) {
  switch (a.keys.type) {
    case DType::kI8:
      return attend_code_chunk(a);
    case DType::kF16:
      return attend_chunk<uint16_t>(a);
    default:
      return attend_chunk<float>(a);
  }
}

// y[rows, group, head_dim] of `chunks` partial results, chunk_stride floats apart.
static void merge_chunks(const AttentionMerge& a) {
  const int64_t width = padded(a.head_dim);
  const int64_t stride = partial_floats(a.head_dim);
  for (int64_t i = 0; i < a.rows * a.group; ++i) {
    float* first = a.partials + i * stride;
    float high = first[width];
    for (int64_t c = 1; c < a.chunks; ++c) {
      const float other = first[c * a.chunk_stride + width];
      high = other > high ? other : high;
    }
    float total = 0.0f;
    for (int64_t c = 0; c < a.chunks; ++c) {
      const float* from = first + c * a.chunk_stride;
      if (from[width + 1] == 0.0f) continue;  // saw no key
      const float keep = from[width] == high ? 1.0f : exp_of(from[width] - high);
      total += keep * from[width + 1];
      for (int64_t j = 0; j < width; j += kWidth)
        store(first + j, c == 0 ? load(from + j) * keep : load(first + j) + load(from + j) * keep);
    }
    float* y = a.y + i / a.group * a.token_stride + i % a.group * a.head_dim;
    const float inverse = 1.0f / total;
    int64_t j = 0;
    for (; j + kWidth <= a.head_dim; j += kWidth) store(y + j, load(first + j) * inverse);
    for (; j < a.head_dim; ++j) y[j] = first[j] * inverse;
  }
}
