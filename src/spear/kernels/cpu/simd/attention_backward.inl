// The reverse of dense causal attention for one kv-head of one sequence, in blocks of kKeys queries
// by kKeys keys:
//   P = e^(scale QKᵀ − lse)   dP = dY Vᵀ   dS = P ⊙ (dP − D) scale,  D = Σ dy ⊙ y
//   dV += Pᵀ dY   dK += dSᵀ Q   dQ += dS K
// P is made again from the saved log-sum-exp, so nothing of size length² is kept.

struct BackwardMemory {
  float *q, *dy, *dq;          // [kKeys, width] of a block of queries
  float *k, *dk, *dv;          // [kKeys, width] of a block of keys
  float *k_across, *v_across;  // [width, kKeys]
  float *p, *ds;               // [kKeys, kKeys]
  float* mean;                 // [kKeys] D
};

static int64_t attention_backward_scratch_floats(int64_t head_dim) {
  return 8 * kKeys * padded(head_dim) + 2 * kKeys * kKeys + kKeys;
}

static BackwardMemory backward_memory(float* scratch, int64_t width) {
  BackwardMemory at{};
  float** blocks[] = {&at.q, &at.dy, &at.dq, &at.k, &at.dk, &at.dv, &at.k_across, &at.v_across};
  for (float** block : blocks) {
    *block = scratch;
    scratch += kKeys * width;
  }
  at.p = scratch;
  at.ds = at.p + kKeys * kKeys;
  at.mean = at.ds + kKeys * kKeys;
  return at;
}

static void clear(float* x, int64_t count) {
  for (int64_t j = 0; j < count; ++j) x[j] = 0.0f;
}
static const float kOnes[kRows] = {1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f};

// c[rows, columns] (+)= a · b with a read as [rows, depth] or transposed.
static void accumulate(const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t width,
                       float* c, int64_t rows, int64_t depth) {
  for (int64_t i = 0; i < rows; i += kRows)
    product({.a = a + i * a_row,
             .a_row = a_row,
             .a_step = a_step,
             .b = b,
             .ldb = width,
             .c = c + i * width,
             .ldc = width,
             .depth = depth,
             .columns = width,
             .row_scales = kOnes},
            rows - i < kRows ? rows - i : kRows);
}

// P and dS of queries [i0, i0 + rows) against keys [t0, t0 + keys); entries beyond the diagonal are
// zero.
static void backward_scores(const AttentionBackwardHead& h, const BackwardMemory& at, int64_t head,
                            int64_t i0, int64_t rows, int64_t t0, int64_t keys, int64_t width) {
  product_all({.a = at.q,
               .a_row = width,
               .a_step = 1,
               .b = at.k_across,
               .ldb = kKeys,
               .c = at.p,
               .ldc = kKeys,
               .depth = h.head_dim,
               .columns = kKeys,
               .row_scales = nullptr},
              rows);
  product_all({.a = at.dy,
               .a_row = width,
               .a_step = 1,
               .b = at.v_across,
               .ldb = kKeys,
               .c = at.ds,
               .ldc = kKeys,
               .depth = h.head_dim,
               .columns = kKeys,
               .row_scales = nullptr},
              rows);
  const VecI lanes = lane_numbers();
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t causal = i0 + i - t0 + 1;
    const auto seen = static_cast<int32_t>(causal < keys ? causal : keys);
    const float log_sum = h.log_sum[head * h.length + i0 + i];
    for (int64_t t = 0; t < kKeys; t += kWidth) {
      float* p = at.p + i * kKeys + t;
      float* ds = at.ds + i * kKeys + t;
      const VecF weight = exp_of(load(p) * h.scale - log_sum);
      const VecF masked = lanes + static_cast<int32_t>(t) < splat(seen) ? weight : VecF{};
      store(ds, masked * (load(ds) - at.mean[i]) * h.scale);
      store(p, masked);
    }
  }
}

static void load_queries(const AttentionBackwardHead& h, const BackwardMemory& at, int64_t head,
                         int64_t i0, int64_t rows, int64_t width) {
  const int64_t offset = i0 * h.q_stride + head * h.head_dim;
  copy_block({.base = h.q + offset, .row_stride = h.q_stride}, 0, rows, h.head_dim, width, at.q);
  copy_block({.base = h.dy + offset, .row_stride = h.q_stride}, 0, rows, h.head_dim, width, at.dy);
  for (int64_t i = 0; i < rows; ++i) {
    const float* y = h.y + offset + i * h.q_stride;
    const float* dy = h.dy + offset + i * h.q_stride;
    VecF sums{};
    int64_t j = 0;
    for (; j + kWidth <= h.head_dim; j += kWidth) sums += load(y + j) * load(dy + j);
    float mean = sum_lanes(sums);
    for (; j < h.head_dim; ++j) mean += y[j] * dy[j];
    at.mean[i] = mean;
  }
}

static void add_rows(const float* from, int64_t width, float* to, int64_t stride, int64_t rows,
                     int64_t head_dim, bool first) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < head_dim; ++j)
      to[i * stride + j] = from[i * width + j] + (first ? 0.0f : to[i * stride + j]);
}

static void attention_backward_head(const AttentionBackwardHead& h) {
  const int64_t d = h.head_dim;
  const int64_t width = padded(d);
  const BackwardMemory at = backward_memory(h.scratch, width);
  for (int64_t t0 = 0; t0 < h.length; t0 += kKeys) {
    const int64_t keys = h.length - t0 < kKeys ? h.length - t0 : kKeys;
    const HeadRows k_rows{.base = h.k + t0 * h.kv_stride, .row_stride = h.kv_stride};
    const HeadRows v_rows{.base = h.v + t0 * h.kv_stride, .row_stride = h.kv_stride};
    copy_block(k_rows, 0, keys, d, width, at.k);
    transpose_block(k_rows, 0, keys, d, nullptr, at.k_across);
    transpose_block(v_rows, 0, keys, d, nullptr, at.v_across);
    clear(at.dk, kKeys * width);
    clear(at.dv, kKeys * width);
    for (int64_t head = 0; head < h.group; ++head) {
      for (int64_t i0 = t0; i0 < h.length; i0 += kKeys) {
        const int64_t rows = h.length - i0 < kKeys ? h.length - i0 : kKeys;
        load_queries(h, at, head, i0, rows, width);
        backward_scores(h, at, head, i0, rows, t0, keys, width);
        accumulate(at.p, 1, kKeys, at.dy, width, at.dv, keys, rows);
        accumulate(at.ds, 1, kKeys, at.q, width, at.dk, keys, rows);
        clear(at.dq, rows * width);
        accumulate(at.ds, kKeys, 1, at.k, width, at.dq, rows, keys);
        add_rows(at.dq, width, h.dq + i0 * h.q_stride + head * d, h.q_stride, rows, d, t0 == 0);
      }
    }
    add_rows(at.dk, width, h.dk + t0 * h.kv_stride, h.kv_stride, keys, d, true);
    add_rows(at.dv, width, h.dv + t0 * h.kv_stride, h.kv_stride, keys, d, true);
  }
}
