#include "spear/compensate/train_model.h"

#include <gtest/gtest.h>

#include "spear/compensate/base_model.h"
#include "spear/compensate/closed_form.h"
#include "spear/compensate/removal.h"

#include "support/temporary_directory.h"
#include "tiny_training.h"

namespace spear {
namespace {

using test::TinyTraining;

size_t compensator_bytes_of(const QuantizedModel& model) {
  return count_bytes(model).compensators;
}

int64_t compensated(const QuantizedModel& model) {
  int64_t count = 0;
  for (const QuantizedLayer& layer : model.layers)
    for (const QuantizedLinear& linear : layer.linears) count += linear.compensator ? 1 : 0;
  return count;
}

// Closed forms on most modules, random factors on every third.
CompensatorList mixed_compensators(const TinyTraining& tiny, const RecipePlan& plan,
                                   const Covariances& covariances, ThreadPool& pool) {
  CompensatorList list = test::random_compensators(tiny.model.config, 2, 0);
  for (int32_t index = 0; index < 14; ++index) {
    if (index % 3 == 0) continue;
    const ModuleId id{index / kModulesPerLayer, static_cast<Module>(index % kModulesPerLayer)};
    const std::vector<float> residual = remaining_error(tiny.dense, tiny.model, plan, id, pool);
    const HostTensor covariance = covariances.load(id.layer, input_site(id.module));
    auto& ec = list[static_cast<size_t>(index)];
    ec = closed_form(residual.data(), ec->n, ec->k, covariance.as<float>().data(),
                     {.rank = 2, .spectrum = 2})
             .factors;
  }
  return list;
}

// The random ones are useless: they are dropped, and their bytes buy rank where the others help.
TEST(TrainModel, SpendsTheBytesOfUselessCompensatorsElsewhere) {
  const test::TemporaryDirectory folder;
  TinyTraining tiny(folder.path());
  SilentProgress silent;
  Decoder decoder(*tiny.backend, tiny.dense, Compute::kF32);
  const Covariances covariances(folder.path(), tiny.dense.config, tiny.dense.content_hash,
                                tiny.tokens.hash(), Compute::kF32);
  GatherOptions gather;
  gather.compute = Compute::kF32;
  gather_covariances(decoder, tiny.tokens, gather, covariances, tiny.pool, silent);
  RecipePlan plan;
  plan.quantize.rotate = false;
  plan.stages.push_back({"joint", TinyTraining::options()});
  plan.removal_sequences = 3;
  plan.retune_steps = 6;
  const TrainContext context{tiny.dense,
                             &covariances,
                             tiny.tokens,
                             tiny.teacher,
                             *tiny.backend,
                             tiny.pool,
                             Compute::kF32,
                             0,
                             {}};
  const CompensatorList start = mixed_compensators(tiny, plan, covariances, tiny.pool);
  const TrainReport report = train_model(tiny.model, plan, start, context, silent);
  EXPECT_GT(report.dropped, 0);
  EXPECT_EQ(compensated(tiny.model), 14 - report.dropped);
  ASSERT_EQ(report.stages.size(), 2u);
  EXPECT_EQ(report.stages.back().name, "retune");
  size_t all = 0;
  for (const auto& ec : start) all += compensator_bytes(ec->n, ec->k, ec->rank, 0, 8);
  const size_t left = all - report.freed_bytes;
  EXPECT_EQ(compensator_bytes_of(tiny.model) > left, report.ranks_added > 0);
  EXPECT_LE(compensator_bytes_of(tiny.model), all) << "more than the freed bytes were spent";
  // What is stored has the KL that the last accepted stage reports, or the one after dropping,
  // which was lower.
  const StudentModel stored = make_student(tiny.model, {});
  const auto pass = make_reverse_pass(stored, tiny.dense.head_weight().view(), *tiny.backend,
                                      tiny.pool, {Compute::kF32, false, true});
  const double kl = mean_kl(*pass, stored.start, tiny.data(),
                            split_held_out(20, TinyTraining::options()).held_out, 24, 1.0f);
  EXPECT_LE(kl, report.stages.back().held_out_after + 1e-6);
}

}  // namespace
}  // namespace spear
