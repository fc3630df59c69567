// The speed of light of a core: twelve chains of multiply-adds that depend on nothing but
// themselves.

static double fma_chain_steps(int64_t steps, float* sink) {
  constexpr int kChains = 12;
  VecF sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = splat(static_cast<float>(i));
  const VecF factor = splat(0.999f) + sink[0];
  const VecF term = splat(0.001f) + sink[1];
  for (int64_t step = 0; step < steps; ++step)
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sums[i] = sums[i] * factor + term;
  VecF all{};
  for (int i = 0; i < kChains; ++i) all += sums[i];
  sink[2] = sum_lanes(all);
  return 2.0 * kChains * kWidth * static_cast<double>(steps);
}
