#include "spear/model/calibration.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include <fmt/format.h>

#include "spear/base/atomic_file.h"
#include "spear/base/hash.h"
#include "spear/base/mapped_file.h"
#include "spear/base/rng.h"
#include "spear/base/thread_pool.h"

namespace spear {
namespace {

struct FileHeader {
  char magic[8] = {'S', 'P', 'E', 'A', 'R', 'T', 'O', 'K'};
  int64_t count = 0, length = 0;
};

int32_t first_token(const ModelConfig& config) {
  if (config.bos_token_id >= 0) return config.bos_token_id;
  return config.eos_token_ids.empty() ? 0 : config.eos_token_ids.front();
}

// The token at which the running sum of probabilities passes u, by the row's log-sum-exp.
int32_t draw(const float* logits, int64_t vocab, float log_sum, double u) {
  double sum = 0;
  for (int64_t v = 0; v < vocab; ++v) {
    sum += static_cast<double>(std::exp(logits[v] - log_sum));
    if (sum > u) return static_cast<int32_t>(v);
  }
  // Rounding left the sum just below u: the most probable token stands in.
  return static_cast<int32_t>(std::max_element(logits, logits + vocab) - logits);
}

void sample_group(Decoder& decoder, const SampleOptions& options, int64_t first, int64_t sequences,
                  ThreadPool& pool, Progress& progress, TokenSequences& out) {
  Backend& backend = decoder.backend();
  const ModelConfig& config = decoder.config();
  KvCache cache(backend, config, sequences, options.length, true);
  const int64_t vocab = config.vocab_size;
  const auto floats = [&](int64_t count) {
    return backend.allocate(static_cast<size_t>(count) * sizeof(float));
  };
  const DeviceBuffer hidden = floats(sequences * config.hidden_size);
  const DeviceBuffer device_logits = floats(sequences * vocab);
  const DeviceBuffer device_log_sum = floats(sequences);
  std::vector<float> logits(static_cast<size_t>(sequences * vocab));
  std::vector<float> log_sum(static_cast<size_t>(sequences));
  std::vector<Rng> generators;
  for (int64_t i = 0; i < sequences; ++i)
    generators.emplace_back(options.seed, static_cast<uint64_t>(first + i) + 1);
  std::vector<int32_t> tokens(static_cast<size_t>(sequences), first_token(config));
  std::vector<AttentionSequence> rows(static_cast<size_t>(sequences));
  const auto inverse_temperature = static_cast<float>(1.0 / options.temperature);
  for (int64_t t = 0;; ++t) {
    for (int64_t i = 0; i < sequences; ++i)
      out.ids[static_cast<size_t>((first + i) * options.length + t)] =
          tokens[static_cast<size_t>(i)];
    progress.advance(sequences);
    if (progress.stop_requested()) throw Failure(ErrorCode::kInterrupted, "sampling was stopped");
    if (t + 1 == options.length) return;
    for (int64_t i = 0; i < sequences; ++i) rows[static_cast<size_t>(i)] = cache.append(i, i, 1);
    decoder.forward({tokens, rows}, cache, hidden.as<float>());
    decoder.logits(hidden.as<float>(), sequences, device_logits.as<float>());
    backend.download(logits.data(), device_logits.as<float>(), logits.size() * sizeof(float));
    if (options.temperature != 1.0) {
      for (float& value : logits) value *= inverse_temperature;
      backend.upload(device_logits.as<float>(), logits.data(), logits.size() * sizeof(float));
    }
    backend.log_sum_exp(
        {sequences, vocab, device_logits.as<float>(), device_log_sum.as<float>(), nullptr});
    backend.download(log_sum.data(), device_log_sum.as<float>(), log_sum.size() * sizeof(float));
    pool.parallel_for(sequences, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const auto s = static_cast<size_t>(i);
        tokens[s] = draw(logits.data() + i * vocab, vocab, log_sum[s], generators[s].uniform());
      }
    });
  }
}

}  // namespace

std::string TokenSequences::hash() const {
  Sha256 digest;
  const int64_t sizes[] = {count, length};
  digest.update(std::as_bytes(std::span(sizes)));
  digest.update(std::as_bytes(std::span(ids)));
  return digest.hex();
}

TokenSequences sample_self(Decoder& decoder, const SampleOptions& options, ThreadPool& pool,
                           Progress& progress) {
  expects(options.count > 0 && options.length > 0 && options.batch > 0 && options.temperature > 0);
  TokenSequences out{options.count, options.length,
                     std::vector<int32_t>(static_cast<size_t>(options.count * options.length))};
  progress.begin("sampling from the reference", options.count * options.length);
  for (int64_t first = 0; first < options.count; first += options.batch)
    sample_group(decoder, options, first, std::min(options.batch, options.count - first), pool,
                 progress, out);
  progress.end();
  return out;
}

Result<TokenSequences> cut_into_sequences(std::span<const int32_t> ids, int64_t length,
                                          const std::string& source) {
  const int64_t count = static_cast<int64_t>(ids.size()) / length;
  if (count == 0)
    return fail(
        ErrorCode::kUsage,
        fmt::format(
            "{}: {} tokens of text, at least {} are needed for one sequence; give more text",
            source, ids.size(), length));
  const auto kept = ids.first(static_cast<size_t>(count * length));
  return TokenSequences{count, length, {kept.begin(), kept.end()}};
}

TokenSequences choose_sequences(const TokenSequences& from, int64_t count, uint64_t seed) {
  std::vector<int64_t> order(static_cast<size_t>(from.count));
  std::iota(order.begin(), order.end(), int64_t{0});
  Rng rng(seed);
  for (size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[rng.below(static_cast<uint32_t>(i))]);
  TokenSequences out{std::min(count, from.count), from.length, {}};
  for (int64_t i = 0; i < out.count; ++i) {
    const auto row = from.row(order[static_cast<size_t>(i)]);
    out.ids.insert(out.ids.end(), row.begin(), row.end());
  }
  return out;
}

TokenSequences concatenate(const TokenSequences& a, const TokenSequences& b) {
  if (a.count == 0) return b;
  expects(b.count == 0 || a.length == b.length);
  TokenSequences out{a.count + b.count, a.length, a.ids};
  out.ids.insert(out.ids.end(), b.ids.begin(), b.ids.end());
  return out;
}

void save_sequences(const std::filesystem::path& path, const TokenSequences& sequences) {
  FileHeader header;
  header.count = sequences.count;
  header.length = sequences.length;
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&header, 1)));
  file.write(std::as_bytes(std::span(sequences.ids)));
  file.commit();
}

Result<TokenSequences> load_sequences(const std::filesystem::path& path, int64_t vocab_size) {
  Result<MappedFile> file = MappedFile::open(path);
  if (!file) return tl::unexpected(file.error());
  const std::span<const std::byte> bytes = file->bytes();
  FileHeader header;
  const FileHeader expected;
  if (bytes.size() < sizeof(header))
    return fail(ErrorCode::kBadFile, fmt::format("{}: {} bytes, too short for token sequences",
                                                 path.string(), bytes.size()));
  std::memcpy(&header, bytes.data(), sizeof(header));
  const auto payload = static_cast<int64_t>((bytes.size() - sizeof(header)) / sizeof(int32_t));
  if (std::memcmp(header.magic, expected.magic, sizeof(header.magic)) != 0 || header.count < 1 ||
      header.length < 1 || header.length > payload || header.count != payload / header.length ||
      payload % header.length != 0)
    return fail(ErrorCode::kBadFile,
                fmt::format("{}: not a file of token sequences", path.string()));
  TokenSequences out{header.count, header.length,
                     std::vector<int32_t>(static_cast<size_t>(payload))};
  std::memcpy(out.ids.data(), bytes.data() + sizeof(header), out.ids.size() * sizeof(int32_t));
  for (const int32_t id : out.ids)
    if (id < 0 || id >= vocab_size)
      return fail(ErrorCode::kBadFile, fmt::format("{}: token {} is outside the vocabulary of {}",
                                                   path.string(), id, vocab_size));
  return out;
}

}  // namespace spear
