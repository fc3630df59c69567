#include "spear/kernels/attention.h"

#include <numeric>

#include "spear/base/rng.h"

#include "kernels/attention_reference.h"
#include "support/guarded_buffer.h"
#include "support/random_tensors.h"

namespace spear {
namespace {

struct Shape {
  int64_t heads, kv_heads, head_dim, page_size;
};

// A few sequences in one cache, their pages in shuffled order and unused ones filled with NaN.
class Scene {
 public:
  Scene(const Shape& shape, const std::vector<std::pair<int64_t, int64_t>>& rows_and_context,
        uint64_t seed)
      : shape_(shape), rng_(seed) {
    int64_t page_count = 0;
    for (const auto& [rows, context] : rows_and_context) {
      const int64_t pages = (rows + context + shape.page_size - 1) / shape.page_size;
      tables_.emplace_back(static_cast<size_t>(pages));
      sequences_.push_back({.first_row = m_, .rows = rows, .context = context});
      m_ += rows;
      page_count += pages;
    }
    std::vector<int32_t> order(static_cast<size_t>(page_count + 2));
    std::iota(order.begin(), order.end(), 0);
    for (size_t i = order.size(); i > 1; --i)
      std::swap(order[i - 1], order[rng_.below(static_cast<uint32_t>(i))]);
    size_t next = 0;
    for (size_t i = 0; i < tables_.size(); ++i) {
      for (int32_t& page : tables_[i]) page = order[next++];
      sequences_[i].pages = tables_[i].data();
    }
    const auto floats = (page_count + 2) * shape.kv_heads * shape.page_size * shape.head_dim;
    keys_.assign(static_cast<size_t>(floats), NAN);
    values_.assign(static_cast<size_t>(floats), NAN);
    fill();
    q_ = test::normal_values(m_ * shape.heads * shape.head_dim, rng_);
  }

  AttentionArgs args(float* y) {
    return {shape_.heads,
            shape_.kv_heads,
            shape_.head_dim,
            q_.data(),
            {keys_.data(), values_.data(), shape_.page_size},
            sequences_.data(),
            static_cast<int64_t>(sequences_.size()),
            1.0f / std::sqrt(static_cast<float>(shape_.head_dim)),
            y};
  }
  int64_t outputs() const { return m_ * shape_.heads * shape_.head_dim; }

  std::vector<double> bounds() {
    std::vector<double> all;
    const int64_t d = shape_.head_dim;
    for (const AttentionSequence& s : sequences_)
      for (int64_t row = 0; row < s.rows; ++row)
        for (int64_t head = 0; head < shape_.heads; ++head) {
          const int64_t kv = head / (shape_.heads / shape_.kv_heads);
          const auto result = test::attention_row(
              q_.data() + ((s.first_row + row) * shape_.heads + head) * d,
              [&](int64_t t) { return keys_.data() + offset(s, t, kv); },
              [&](int64_t t) { return values_.data() + offset(s, t, kv); }, s.context + row + 1, d,
              1.0 / std::sqrt(static_cast<double>(d)));
          all.insert(all.end(), result.y_bound.begin(), result.y_bound.end());
        }
    return all;
  }

 private:
  int64_t offset(const AttentionSequence& s, int64_t t, int64_t kv_head) const {
    return ((s.pages[t / shape_.page_size] * shape_.kv_heads + kv_head) * shape_.page_size +
            t % shape_.page_size) *
           shape_.head_dim;
  }
  // Through kv_append of the twin for the context, so that its layout is what attention reads.
  void fill() {
    for (const AttentionSequence& s : sequences_) {
      const int64_t rows = s.rows + s.context;
      const auto k = test::normal_values(rows * shape_.kv_heads * shape_.head_dim, rng_);
      const auto v = test::normal_values(rows * shape_.kv_heads * shape_.head_dim, rng_);
      const AttentionSequence whole{.rows = rows, .pages = s.pages};
      ref::kv_append({shape_.kv_heads,
                      shape_.head_dim,
                      k.data(),
                      v.data(),
                      {keys_.data(), values_.data(), shape_.page_size},
                      &whole,
                      1});
    }
  }

  Shape shape_;
  Rng rng_;
  int64_t m_ = 0;
  std::vector<std::vector<int32_t>> tables_;
  std::vector<AttentionSequence> sequences_;
  std::vector<float> keys_, values_, q_;
};

void check(const Shape& shape, const std::vector<std::pair<int64_t, int64_t>>& rows_and_context) {
  Scene scene(shape, rows_and_context, 7);
  std::vector<float> want(static_cast<size_t>(scene.outputs()));
  ref::attention(scene.args(want.data()));
  const std::vector<double> bounds = scene.bounds();
  test::each_isa([&](ThreadPool& pool, const cpu::SimdLoops& loops) {
    test::GuardedBuffer<float> y(scene.outputs());
    cpu::attention(scene.args(y.data()), pool, loops);
    EXPECT_TRUE(test::all_within(y.span(), want, bounds, {shape.head_dim}))
        << shape.heads << "/" << shape.kv_heads << " heads of " << shape.head_dim << ", "
        << rows_and_context.front().first << " rows after " << rows_and_context.front().second;
    EXPECT_TRUE(y.intact());
  });
}

TEST(Attention, AgreesWithThePlainTwinForEveryNumberOfRows) {
  for (int64_t rows = 1; rows <= 17; ++rows)
    check({.heads = 6, .kv_heads = 2, .head_dim = 16, .page_size = 4}, {{rows, 0}, {rows, 13}});
}

TEST(Attention, AgreesWithThePlainTwinForEveryHeadSize) {
  for (const int64_t d : {1, 2, 15, 16, 17, 31, 48, 64, 80, 96, 128})
    check({.heads = 3, .kv_heads = 1, .head_dim = d, .page_size = 16}, {{9, 70}, {1, 30}});
}

TEST(Attention, AgreesWithThePlainTwinForEveryGrouping) {
  for (const auto& [heads, kv_heads] :
       {std::pair<int64_t, int64_t>{1, 1}, {4, 4}, {4, 2}, {7, 1}, {14, 2}})
    check({.heads = heads, .kv_heads = kv_heads, .head_dim = 32, .page_size = 8}, {{20, 5}});
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

TEST(KvAppend, PutsRowsWhereThePlainTwinPutsThem) {
  Rng rng(8);
  const std::vector<int32_t> pages = {3, 0, 2};
  const AttentionSequence sequences[] = {
      {.first_row = 0, .rows = 7, .context = 3, .pages = pages.data()}};
  const auto k = test::normal_values(7 * 2 * 5, rng);
  const auto v = test::normal_values(7 * 2 * 5, rng);
  std::vector<float> cache[4];
  for (auto& c : cache) c.assign(4 * 2 * 4 * 5, -1.0f);
  ref::kv_append({2, 5, k.data(), v.data(), {cache[0].data(), cache[1].data(), 4}, sequences, 1});
  ThreadPool pool(3);
  cpu::kv_append({2, 5, k.data(), v.data(), {cache[2].data(), cache[3].data(), 4}, sequences, 1},
                 pool);
  EXPECT_EQ(cache[0], cache[2]);
  EXPECT_EQ(cache[1], cache[3]);
}

}  // namespace
}  // namespace spear
