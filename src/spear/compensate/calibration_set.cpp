#include "spear/compensate/calibration_set.h"

#include <algorithm>

#include <fmt/format.h>

#include "spear/base/atomic_file.h"
#include "spear/base/hash.h"

namespace spear {
namespace {

TokenSequences first_of(const TokenSequences& from, int64_t begin, int64_t count) {
  TokenSequences out;
  out.length = from.length;
  out.count = std::clamp<int64_t>(from.count - begin, 0, count);
  const auto at = from.ids.begin() + begin * from.length;
  out.ids.assign(at, at + out.count * from.length);
  return out;
}

TokenSequences self_samples(const RecipePlan& plan, uint64_t seed, const std::string& model_hash,
                            int64_t vocab_size, const std::function<Decoder&()>& decoder,
                            const std::filesystem::path& cache, ThreadPool& pool,
                            Progress& progress) {
  SampleOptions options;
  options.count = plan.self_samples + kUnseenSequences;
  options.length = plan.length;
  options.seed = seed;
  const std::filesystem::path path =
      cache / fmt::format("samples-{:.16}-{}-{}x{}.tokens", model_hash, seed, options.count,
                          options.length);
  std::error_code error;
  if (std::filesystem::exists(path, error)) {
    // A damaged file is sampled again.
    if (auto stored = load_sequences(path, vocab_size);
        stored && stored->count == options.count && stored->length == options.length)
      return std::move(*stored);
  }
  TokenSequences samples = sample_self(decoder(), options, pool, progress);
  save_sequences(path, samples);
  return samples;
}

}  // namespace

CalibrationText read_calibration_text(const std::filesystem::path& path, const Tokenizer& tokenizer,
                                      int64_t length) {
  const std::string content = value_or_throw(read_text_file(path));
  CalibrationText text;
  text.name = path.filename().string();
  text.sha256 = sha256_hex(std::as_bytes(std::span(content.data(), content.size())));
  const std::vector<int32_t> ids = tokenizer.encode(content);
  text.tokens = static_cast<int64_t>(ids.size());
  text.sequences = value_or_throw(cut_into_sequences(ids, length, path.string()));
  return text;
}

CalibrationSet make_calibration_set(const RecipePlan& plan, uint64_t seed,
                                    const std::string& model_hash,
                                    const std::vector<CalibrationText>& texts, int64_t vocab_size,
                                    const std::function<Decoder&()>& decoder,
                                    const std::filesystem::path& cache, ThreadPool& pool,
                                    Progress& progress) {
  const TokenSequences samples =
      self_samples(plan, seed, model_hash, vocab_size, decoder, cache, pool, progress);
  TokenSequences real;
  real.length = plan.length;
  for (const CalibrationText& text : texts) real = concatenate(real, text.sequences);
  real = choose_sequences(real, plan.real_sequences, seed);
  CalibrationSet set;
  set.covariance = concatenate(first_of(samples, 0, plan.covariance_self),
                               first_of(real, 0, plan.covariance_real));
  set.training = concatenate(first_of(samples, 0, plan.self_samples), real);
  set.unseen = first_of(samples, plan.self_samples, kUnseenSequences);
  return set;
}

}  // namespace spear
