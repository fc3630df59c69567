#include "spear/kernels/attention.h"

#include <numeric>

#include "spear/base/rng.h"
#include "spear/kernels/cpu/attention_plan.h"

#include "kernels/attention_reference.h"
#include "support/guarded_buffer.h"
#include "support/random_tensors.h"

namespace spear {
namespace {

struct Shape {
  int64_t heads, kv_heads, head_dim, page_size;
  DType type = DType::kF32;
};

constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kI8};

// Memory of one layer with guard bytes around each part.
class KvMemory {
 public:
  KvMemory(const Shape& shape, int64_t pages)
      : shape_(shape),
        rows_(pages * shape.kv_heads * shape.page_size),
        keys_(bytes()),
        values_(bytes()),
        key_scales_(rows_),
        value_scales_(rows_) {}
  KvLayerView view() {
    return {keys_.data(), values_.data(),     shape_.page_size,
            shape_.type,  key_scales_.data(), value_scales_.data()};
  }
  bool intact() {
    return keys_.intact() && values_.intact() && key_scales_.intact() && value_scales_.intact();
  }
  // Row `row` as floats: what is really stored.
  std::vector<float> key(int64_t row) {
    return floats(keys_.data(), key_scales_.data(), row, [&](int64_t place, int64_t j) {
      return place / 16 * 16 * shape_.head_dim + j / 2 * 32 + place % 16 * 2 + j % 2;
    });
  }
  std::vector<float> value(int64_t row) {
    return floats(values_.data(), value_scales_.data(), row, [&](int64_t place, int64_t j) {
      return place / 2 * 2 * shape_.head_dim + j * 2 + place % 2;
    });
  }
  float value_scale(int64_t row) { return value_scales_.data()[row]; }

 private:
  int64_t bytes() const {
    return rows_ * shape_.head_dim * static_cast<int64_t>(size_of(shape_.type));
  }
  template <class InPage>
  std::vector<float> floats(const void* data, const float* scales, int64_t row,
                            InPage in_page) const {
    std::vector<float> out;
    const int64_t d = shape_.head_dim;
    const int64_t place = row % shape_.page_size;
    for (int64_t j = 0; j < d; ++j) {
      if (shape_.type == DType::kF16)
        out.push_back(float_from_f16(static_cast<const uint16_t*>(data)[row * d + j]));
      else if (shape_.type == DType::kF32)
        out.push_back(static_cast<const float*>(data)[row * d + j]);
      else
        out.push_back(static_cast<float>(
                          static_cast<const int8_t*>(data)[(row - place) * d + in_page(place, j)]) *
                      scales[row]);
    }
    return out;
  }

  Shape shape_;
  int64_t rows_;
  test::GuardedBuffer<uint8_t> keys_, values_;
  test::GuardedBuffer<float> key_scales_, value_scales_;
};

// A few sequences in one cache, their pages in shuffled order and unused ones filled with NaN.
class Scene {
 public:
  Scene(const Shape& shape, const std::vector<std::pair<int64_t, int64_t>>& rows_and_context,
        uint64_t seed)
      : shape_(shape), rng_(seed), memory_(shape, pages_of(shape, rows_and_context) + 2) {
    for (const auto& [rows, context] : rows_and_context) {
      tables_.emplace_back(static_cast<size_t>(pages_of(shape, {{rows, context}})));
      sequences_.push_back({.first_row = m_, .rows = rows, .context = context});
      m_ += rows;
    }
    std::vector<int32_t> order(static_cast<size_t>(pages_of(shape, rows_and_context) + 2));
    std::iota(order.begin(), order.end(), 0);
    for (size_t i = order.size(); i > 1; --i)
      std::swap(order[i - 1], order[rng_.below(static_cast<uint32_t>(i))]);
    size_t next = 0;
    for (size_t i = 0; i < tables_.size(); ++i) {
      for (int32_t& page : tables_[i]) page = order[next++];
      sequences_[i].pages = tables_[i].data();
    }
    fill();
    q_ = test::normal_values(m_ * shape.heads * shape.head_dim, rng_);
  }

  AttentionArgs args(float* y) {
    return {shape_.heads,
            shape_.kv_heads,
            shape_.head_dim,
            q_.data(),
            memory_.view(),
            sequences_.data(),
            static_cast<int64_t>(sequences_.size()),
            1.0f / std::sqrt(static_cast<float>(shape_.head_dim)),
            y};
  }
  int64_t outputs() const { return m_ * shape_.heads * shape_.head_dim; }
  // Where sequence i's outputs begin and how many there are.
  std::pair<int64_t, int64_t> outputs_of(size_t i) const {
    const int64_t row = shape_.heads * shape_.head_dim;
    return {sequences_[i].first_row * row, sequences_[i].rows * row};
  }

  std::vector<double> bounds() {
    std::vector<double> all;
    const int64_t d = shape_.head_dim;
    for (const AttentionSequence& s : sequences_)
      for (int64_t head = 0; head < shape_.kv_heads; ++head) {
        std::vector<std::vector<float>> keys, values;
        std::vector<float> scales;
        for (int64_t t = 0; t < s.context + s.rows; ++t) {
          keys.push_back(memory_.key(cache_row(s, t, head)));
          values.push_back(memory_.value(cache_row(s, t, head)));
          scales.push_back(memory_.value_scale(cache_row(s, t, head)));
        }
        add_bounds(s, head, keys, values, scales, all);
      }
    // [sequence][kv-head][row][head of it] -> [row][head]
    return in_output_order(all, d);
  }

 private:
  static int64_t pages_of(const Shape& shape,
                          const std::vector<std::pair<int64_t, int64_t>>& rows_and_context) {
    int64_t count = 0;
    for (const auto& [rows, context] : rows_and_context)
      count += (rows + context + shape.page_size - 1) / shape.page_size;
    return count;
  }
  void add_bounds(const AttentionSequence& s, int64_t kv_head,
                  const std::vector<std::vector<float>>& keys,
                  const std::vector<std::vector<float>>& values, const std::vector<float>& scales,
                  std::vector<double>& all) {
    const int64_t d = shape_.head_dim;
    const int64_t group = shape_.heads / shape_.kv_heads;
    for (int64_t row = 0; row < s.rows; ++row)
      for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        const auto q = read_query(q_.data() + ((s.first_row + row) * shape_.heads + head) * d);
        const auto result = test::attention_row(
            q.data(), [&](int64_t t) { return keys[static_cast<size_t>(t)].data(); },
            [&](int64_t t) { return values[static_cast<size_t>(t)].data(); }, s.context + row + 1,
            d, 1.0 / std::sqrt(static_cast<double>(d)),
            shape_.type == DType::kI8 ? scales.data() : nullptr);
        all.insert(all.end(), result.y_bound.begin(), result.y_bound.end());
      }
  }
  // INT8 keys are stored spread by a Walsh-Hadamard transform, of which products know nothing if
  // the query is spread too.
  std::vector<float> read_query(const float* q) const {
    const int64_t d = shape_.head_dim;
    if (shape_.type != DType::kI8) return {q, q + d};
    const int64_t block = d & -d;
    std::vector<float> out;
    for (int64_t j = 0; j < d; ++j) {
      double sum = 0;
      for (int64_t i = 0; i < block; ++i) {
        const bool odd = __builtin_parityll(static_cast<uint64_t>(i & (j % block))) != 0;
        sum += odd ? -q[j / block * block + i] : q[j / block * block + i];
      }
      out.push_back(static_cast<float>(sum / std::sqrt(static_cast<double>(block))));
    }
    return out;
  }
  std::vector<double> in_output_order(const std::vector<double>& all, int64_t d) const {
    std::vector<double> out(all.size());
    const int64_t group = shape_.heads / shape_.kv_heads;
    auto from = all.begin();
    for (const AttentionSequence& s : sequences_)
      for (int64_t kv = 0; kv < shape_.kv_heads; ++kv)
        for (int64_t row = 0; row < s.rows; ++row) {
          const int64_t to = ((s.first_row + row) * shape_.heads + kv * group) * d;
          std::copy(from, from + group * d, out.begin() + to);
          from += group * d;
        }
    return out;
  }
  int64_t cache_row(const AttentionSequence& s, int64_t t, int64_t kv_head) const {
    return (s.pages[t / shape_.page_size] * shape_.kv_heads + kv_head) * shape_.page_size +
           t % shape_.page_size;
  }
  // Through kv_append of the twin for the context, so that its layout is what attention reads.
  void fill() {
    for (const AttentionSequence& s : sequences_) {
      const int64_t rows = s.rows + s.context;
      const auto k = test::normal_values(rows * shape_.kv_heads * shape_.head_dim, rng_);
      const auto v = test::normal_values(rows * shape_.kv_heads * shape_.head_dim, rng_);
      const AttentionSequence whole{.rows = rows, .pages = s.pages};
      ref::kv_append(
          {shape_.kv_heads, shape_.head_dim, k.data(), v.data(), memory_.view(), &whole, 1});
    }
  }

  Shape shape_;
  Rng rng_;
  KvMemory memory_;
  int64_t m_ = 0;
  std::vector<std::vector<int32_t>> tables_;
  std::vector<AttentionSequence> sequences_;
  std::vector<float> q_;
};

void check(Shape shape, const std::vector<std::pair<int64_t, int64_t>>& rows_and_context) {
  for (const DType type : kTypes) {
    shape.type = type;
    if (type == DType::kI8) {
      if (shape.head_dim % 2 != 0) continue;
      shape.page_size = (shape.page_size + 15) / 16 * 16;
    }
    Scene scene(shape, rows_and_context, 7);
    std::vector<float> want(static_cast<size_t>(scene.outputs()));
    ref::attention(scene.args(want.data()));
    const std::vector<double> bounds = scene.bounds();
    test::each_isa([&](ThreadPool& pool, const cpu::SimdLoops& loops) {
      test::GuardedBuffer<float> y(scene.outputs());
      cpu::attention(scene.args(y.data()), pool, loops);
      EXPECT_TRUE(test::all_within(y.span(), want, bounds, {shape.head_dim}))
          << shape.heads << "/" << shape.kv_heads << " heads of " << shape.head_dim << ", "
          << name_of(type) << ", " << rows_and_context.front().first << " rows after "
          << rows_and_context.front().second;
      EXPECT_TRUE(y.intact());
    });
  }
}

TEST(Attention, AgreesWithThePlainTwinForEveryNumberOfRows) {
  for (int64_t rows = 1; rows <= 17; ++rows)
    check({.heads = 6, .kv_heads = 2, .head_dim = 16, .page_size = 4}, {{rows, 0}, {rows, 13}});
}

TEST(Attention, AgreesWithThePlainTwinForEveryHeadSize) {
  for (const int64_t d : {1, 2, 15, 16, 17, 30, 31, 48, 64, 80, 96, 128})
    check({.heads = 3, .kv_heads = 1, .head_dim = d, .page_size = 16}, {{9, 70}, {1, 30}});
}

TEST(Attention, AgreesWithThePlainTwinForEveryGrouping) {
  for (const auto& [heads, kv_heads] : {std::pair<int64_t, int64_t>{1, 1},
                                        {4, 4},
                                        {4, 2},
                                        {3, 1},
                                        {4, 1},
                                        {5, 1},
                                        {6, 1},
                                        {7, 1},
                                        {8, 1},
                                        {9, 1},
                                        {14, 2}})
    check({.heads = heads, .kv_heads = kv_heads, .head_dim = 32, .page_size = 8},
          {{20, 5}, {1, 29}, {2, 30}});
}

TEST(Attention, CrossesBlocksOfKeysAndTilesOfQueries) {
  for (const int64_t context : {0, 1, 62, 63, 64, 65, 127, 128, 200})
    check({.heads = 3, .kv_heads = 1, .head_dim = 24, .page_size = 16},
          {{1, context}, {5, context}});
  check({.heads = 3, .kv_heads = 1, .head_dim = 16, .page_size = 16}, {{150, 33}, {64, 0}});
}

TEST(Attention, OneTokenAfterALongContextAgreesWithThePlainTwin) {
  check({.heads = 9, .kv_heads = 3, .head_dim = 64, .page_size = 16}, {{1, 700}, {1, 0}, {2, 300}});
  check({.heads = 2, .kv_heads = 2, .head_dim = 20, .page_size = 16}, {{1, 1100}});
}

TEST(Attention, ARowDependsNeitherOnBatchMatesNorOnThreads) {
  for (const DType type : kTypes)
    test::each_isa([&](ThreadPool& pool, const cpu::SimdLoops& loops) {
      const Shape shape{.heads = 6, .kv_heads = 2, .head_dim = 16, .page_size = 64, .type = type};
      Scene scene(shape, {{1, 300}, {40, 100}, {1, 63}, {3, 64}, {1, 1500}}, 7);
      std::vector<float> together(static_cast<size_t>(scene.outputs()));
      const AttentionArgs args = scene.args(together.data());
      cpu::attention(args, pool, loops);
      for (size_t i = 0; i < 5; ++i) {
        std::vector<float> alone(together.size());
        AttentionArgs one = scene.args(alone.data());
        one.sequences = args.sequences + i;
        one.sequence_count = 1;
        ThreadPool single(1);
        cpu::attention(one, single, loops);
        const auto [at, count] = scene.outputs_of(i);
        EXPECT_TRUE(
            std::equal(alone.begin() + at, alone.begin() + at + count, together.begin() + at))
            << "sequence " << i;
      }
    });
}

TEST(AttentionPlan, RunsManyLayersOfManyBatchesFromOneObject) {
  const Shape shape{.heads = 3, .kv_heads = 1, .head_dim = 16, .page_size = 16};
  cpu::AttentionPlan plan;
  for (const auto& batch : {std::vector<std::pair<int64_t, int64_t>>{{1, 200}, {1, 90}},
                            {{1, 10}},
                            {{20, 7}, {1, 400}, {1, 401}, {1, 402}}}) {
    Scene scene(shape, batch, 9);
    std::vector<float> want(static_cast<size_t>(scene.outputs()));
    ThreadPool pool(3);
    cpu::attention(scene.args(want.data()), pool);
    plan.cut(scene.args(nullptr), 1);
    for (int layer = 0; layer < 3; ++layer) {
      test::GuardedBuffer<float> y(scene.outputs());
      for (int64_t i = plan.items(); i-- > 0;) plan.run(scene.args(y.data()), i, 0);
      EXPECT_EQ(y.values(), want);
      EXPECT_TRUE(y.intact());
    }
  }
}

// Codes may differ by one where the exact quotient lies within a rounding of the middle between
// two: 127 · 2⁻²³ of its value.
void expect_same_rows(KvMemory& got, KvMemory& want, int64_t rows, int64_t head_dim, DType type) {
  for (int64_t row = 0; row < rows; ++row) {
    for (const auto& [a, b] :
         {std::pair{got.key(row), want.key(row)}, {got.value(row), want.value(row)}})
      for (int64_t j = 0; j < head_dim; ++j) {
        const auto at = static_cast<size_t>(j);
        if (std::isnan(b[at])) continue;  // nobody's row
        const float slack = type == DType::kI8 ? std::abs(b[at]) * 0x1p-20f : 0.0f;
        EXPECT_LE(std::abs(a[at] - b[at]), slack) << "row " << row << ", " << j;
      }
  }
}

TEST(KvAppend, PutsRowsWhereThePlainTwinPutsThem) {
  const std::vector<int32_t> pages = {3, 0, 2};
  for (const DType type : kTypes)
    for (const int64_t d : {5, 6, 16, 30, 31, 64}) {
      if (type == DType::kI8 && d % 2 != 0) continue;
      Rng rng(8);
      const int64_t page_size = type == DType::kI8 ? 16 : 4;
      const Shape shape{2, 2, d, page_size, type};
      const AttentionSequence sequences[] = {
          {.first_row = 0, .rows = 7, .context = page_size - 1, .pages = pages.data()}};
      auto k = test::normal_values(7 * 2 * d, rng);
      const auto v = test::normal_values(7 * 2 * d, rng);
      std::fill_n(k.begin(), d, 0.0f);  // a row without a maximum
      KvMemory want(shape, 4);
      ref::kv_append({2, d, k.data(), v.data(), want.view(), sequences, 1});
      test::each_isa([&](ThreadPool& pool, const cpu::SimdLoops& loops) {
        KvMemory got(shape, 4);
        cpu::kv_append({2, d, k.data(), v.data(), got.view(), sequences, 1}, pool, loops);
        expect_same_rows(got, want, 4 * 2 * page_size, d, type);
        EXPECT_TRUE(got.intact());
      });
    }
}

TEST(KvAppend, HalvesRoundToNearestEvenAndOverflowToInfinity) {
  std::vector<float> values = {0.0f,   -0.0f,      1.0f,       65504.0f, 65519.0f, 65520.0f,
                               1e9f,   -1e9f,      6e-8f,      2.98e-8f, 2.99e-8f, 6.1e-5f,
                               -3e-6f, 0x1.002p0f, 0x1.006p0f, 0.1f};
  const int32_t page = 0;
  const AttentionSequence sequence{.rows = 1, .pages = &page};
  test::each_isa([&](ThreadPool& pool, const cpu::SimdLoops& loops) {
    const auto d = static_cast<int64_t>(values.size());
    std::vector<uint16_t> keys(values.size()), others(values.size());
    cpu::kv_append({1,
                    d,
                    values.data(),
                    values.data(),
                    {keys.data(), others.data(), 1, DType::kF16},
                    &sequence,
                    1},
                   pool, loops);
    for (size_t i = 0; i < values.size(); ++i)
      EXPECT_EQ(keys[i], f16_from_float(values[i])) << values[i];
  });
}

TEST(RopeAppend, RotatesAsRopeAndStoresAsAppend) {
  const int64_t m = 17, heads = 4, kv = 2, d = 24, kPage = 16;
  const std::vector<int32_t> pages = {1, 0};
  const AttentionSequence sequence{.rows = m, .context = 2, .pages = pages.data()};
  Rng rng(3);
  const auto q0 = test::normal_values(m * heads * d, rng);
  const auto k0 = test::normal_values(m * kv * d, rng);
  const auto v = test::normal_values(m * kv * d, rng);
  std::vector<float> frequencies;
  for (int64_t j = 0; j < d / 2; ++j)
    frequencies.push_back(std::pow(10000.0f, -2.0f * static_cast<float>(j) / d));
  std::vector<int32_t> positions;
  std::vector<int64_t> slots;
  for (int32_t p = 2; p < 2 + m; ++p) {
    positions.push_back(p);
    slots.push_back(pages[static_cast<size_t>(p / kPage)] * kPage + p % kPage);
  }
  for (const DType type : kTypes)
    test::each_isa([&](ThreadPool& pool, const cpu::SimdLoops& loops) {
      const Shape shape{
          .heads = heads, .kv_heads = kv, .head_dim = d, .page_size = kPage, .type = type};
      auto q = q0, k = k0, q_want = q0, k_want = k0;
      cpu::rope({m, heads, d, q_want.data(), heads * d, positions.data(), frequencies.data()}, pool,
                loops);
      cpu::rope({m, kv, d, k_want.data(), kv * d, positions.data(), frequencies.data()}, pool,
                loops);
      KvMemory want(shape, 2), got(shape, 2);
      cpu::kv_append({kv, d, k_want.data(), v.data(), want.view(), &sequence, 1}, pool, loops);
      std::vector<float> table(static_cast<size_t>(m * d));
      loops.rope_table(d, frequencies.data(), positions.data(), 0, m, table.data());
      loops.rope_append({.heads = heads,
                         .kv_heads = kv,
                         .head_dim = d,
                         .q = q.data(),
                         .k = k.data(),
                         .v = v.data(),
                         .q_stride = heads * d,
                         .kv_stride = kv * d,
                         .table = table.data(),
                         .slots = slots.data(),
                         .cache = got.view()},
                        0, m);
      EXPECT_EQ(q, q_want);
      EXPECT_EQ(k, k_want);
      for (int64_t row = 0; row < 2 * kv * kPage; ++row)
        for (int64_t j = 0; j < d; ++j) {
          const auto at = static_cast<size_t>(j);
          EXPECT_TRUE(got.key(row)[at] == want.key(row)[at] || std::isnan(want.key(row)[at]));
          EXPECT_TRUE(got.value(row)[at] == want.value(row)[at] || std::isnan(want.value(row)[at]));
        }
      EXPECT_TRUE(got.intact());
    });
}

}  // namespace
}  // namespace spear
