#include "spear/quantize/covariance.h"

#include <cstring>

#include <fmt/format.h>

#include "spear/base/atomic_file.h"
#include "spear/base/check.h"
#include "spear/base/hash.h"
#include "spear/base/mapped_file.h"
#include "spear/quantize/moment_sum.h"

namespace spear {
namespace {

constexpr std::string_view kSiteNames[kSitesPerLayer] = {"attention", "output", "mlp", "down"};

// In front of the upper triangle, row by row.
struct FileHeader {
  char magic[8] = {'S', 'P', 'E', 'A', 'R', 'C', 'O', 'V'};
  int64_t k = 0;
  uint64_t checksum = 0;
};

size_t triangle_count(int64_t k) {
  return static_cast<size_t>(k * (k + 1) / 2);
}

bool layer_done(const Covariances& covariances, int32_t layer) {
  for (int site = 0; site < kSitesPerLayer; ++site)
    if (!covariances.has(layer, static_cast<InputSite>(site))) return false;
  return true;
}

// All tokens on their way through the model: the residual streams on the host, a chunk of them on
// the backend.
class Streams {
 public:
  Streams(Decoder& decoder, const TokenSequences& tokens, int64_t tokens_per_chunk)
      : decoder_(decoder),
        tokens_(tokens),
        per_chunk_(std::clamp<int64_t>(tokens_per_chunk / tokens.length, 1, tokens.count)),
        hidden_(decoder.config().hidden_size),
        cache_(decoder.backend(), decoder.config(), per_chunk_, tokens.length, false),
        device_(decoder.backend().allocate(bytes_of(per_chunk_))),
        values_(static_cast<size_t>(tokens.count * tokens.length * hidden_)) {}

  void embed() {
    each_chunk(
        [&](std::span<const int32_t> ids, float*) { decoder_.embed(ids, device_.as<float>()); },
        false);
  }
  void run_layer(int32_t layer) {
    each_chunk(
        [&](std::span<const int32_t> ids, float*) {
          cache_.reset_all();
          std::vector<AttentionSequence> sequences;
          for (int64_t s = 0; s * tokens_.length < static_cast<int64_t>(ids.size()); ++s)
            sequences.push_back(cache_.append(s, s * tokens_.length, tokens_.length));
          decoder_.run_layer(layer, {ids, sequences}, cache_, device_.as<float>());
        },
        true);
  }

 private:
  [[nodiscard]] size_t bytes_of(int64_t sequences) const {
    return static_cast<size_t>(sequences * tokens_.length * hidden_) * sizeof(float);
  }
  template <class Body>
  void each_chunk(Body&& body, bool upload) {
    for (int64_t first = 0; first < tokens_.count; first += per_chunk_) {
      const int64_t sequences = std::min(per_chunk_, tokens_.count - first);
      float* host = values_.data() + first * tokens_.length * hidden_;
      const auto ids = std::span(tokens_.ids)
                           .subspan(static_cast<size_t>(first * tokens_.length),
                                    static_cast<size_t>(sequences * tokens_.length));
      if (upload) decoder_.backend().upload(device_.as<float>(), host, bytes_of(sequences));
      body(ids, host);
      decoder_.backend().download(host, device_.as<float>(), bytes_of(sequences));
    }
  }

  Decoder& decoder_;
  const TokenSequences& tokens_;
  int64_t per_chunk_, hidden_;
  KvCache cache_;
  DeviceBuffer device_;
  std::vector<float> values_;  // [count · length, hidden]
};

}  // namespace

Covariances::Covariances(const std::filesystem::path& cache, const ModelConfig& config,
                         const std::string& model_hash, const std::string& token_hash,
                         Compute compute)
    : folder_(cache / fmt::format("covariances-{}-{}-{}", model_hash.substr(0, 16),
                                  token_hash.substr(0, 16),
                                  compute == Compute::kBF16 ? "bf16" : "f32")),
      config_(config) {}

std::filesystem::path Covariances::file_of(int32_t layer, InputSite site) const {
  return folder_ / fmt::format("layer{:03}.{}", layer, kSiteNames[static_cast<int>(site)]);
}

bool Covariances::has(int32_t layer, InputSite site) const {
  const size_t expected =
      sizeof(FileHeader) + triangle_count(site_width(config_, site)) * sizeof(float);
  std::error_code error;
  const auto size = std::filesystem::file_size(file_of(layer, site), error);
  return !error && size == expected;
}

bool Covariances::complete() const {
  for (int32_t layer = 0; layer < config_.num_hidden_layers; ++layer)
    if (!layer_done(*this, layer)) return false;
  return true;
}

HostTensor Covariances::load(int32_t layer, InputSite site) const {
  const int64_t k = site_width(config_, site);
  const std::filesystem::path path = file_of(layer, site);
  const MappedFile file = value_or_throw(MappedFile::open(path));
  const std::span<const std::byte> bytes = file.bytes();
  const size_t triangle = triangle_count(k) * sizeof(float);
  FileHeader header;
  const FileHeader ours;
  if (bytes.size() != sizeof header + triangle)
    throw Failure(
        ErrorCode::kBadFile,
        fmt::format("{}: {} bytes, expected {} for {} inputs; remove the folder and gather "
                    "the covariances again",
                    path.string(), bytes.size(), sizeof header + triangle, k));
  std::memcpy(&header, bytes.data(), sizeof header);
  if (std::memcmp(header.magic, ours.magic, sizeof ours.magic) != 0 || header.k != k ||
      header.checksum != xxh3(bytes.subspan(sizeof header)))
    throw Failure(ErrorCode::kBadFile,
                  fmt::format("{}: the checksum does not fit the contents; remove the folder and "
                              "gather the covariances again",
                              path.string()));
  HostTensor covariance({k, k}, DType::kF32);
  float* out = covariance.as<float>().data();
  const auto* from = reinterpret_cast<const float*>(bytes.data() + sizeof header);
  for (int64_t i = 0; i < k; ++i) {
    std::memcpy(out + i * k + i, from, static_cast<size_t>(k - i) * sizeof(float));
    from += k - i;
  }
  for (int64_t i = 1; i < k; ++i)
    for (int64_t j = 0; j < i; ++j) out[i * k + j] = out[j * k + i];
  return covariance;
}

void Covariances::store(int32_t layer, InputSite site, const HostTensor& covariance) const {
  const int64_t k = site_width(config_, site);
  expects(covariance.shape() == Shape({k, k}));
  const float* values = covariance.as<float>().data();
  const auto row = [&](int64_t i) {  // of the upper triangle
    return std::as_bytes(std::span(values + i * k + i, static_cast<size_t>(k - i)));
  };
  Xxh3 digest;
  for (int64_t i = 0; i < k; ++i) digest.update(row(i));
  FileHeader header;
  header.k = k;
  header.checksum = digest.digest();
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  if (error)
    throw Failure(ErrorCode::kIo, fmt::format("{}: the cache folder cannot be made: {}",
                                              folder_.string(), error.message()));
  AtomicFile file(file_of(layer, site));
  file.write(std::as_bytes(std::span(&header, 1)));
  for (int64_t i = 0; i < k; ++i) file.write(row(i));
  file.commit();
}

void gather_covariances(Decoder& decoder, const TokenSequences& tokens,
                        const GatherOptions& options, const Covariances& covariances,
                        ThreadPool& pool, Progress& progress) {
  if (tokens.count == 0 || tokens.length == 0)
    throw Failure(ErrorCode::kUsage,
                  "calibration: there are no tokens; give at least one sequence");
  const ModelConfig& config = decoder.config();
  const auto layers = static_cast<int32_t>(config.num_hidden_layers);
  if (covariances.complete()) return;
  int32_t last = layers - 1;  // nothing behind the last missing layer needs to run
  while (layer_done(covariances, last)) --last;
  progress.begin("covariances", last + 1);
  Streams streams(decoder, tokens, options.tokens_per_chunk);
  streams.embed();
  for (int32_t layer = 0; layer <= last; ++layer) {
    if (progress.stop_requested())
      throw Failure(ErrorCode::kInterrupted,
                    "stopped while gathering covariances; finished layers are kept");
    std::vector<MomentSum> sums;
    if (!layer_done(covariances, layer)) {
      for (int site = 0; site < kSitesPerLayer; ++site)
        sums.emplace_back(decoder.backend(), pool, site_width(config, static_cast<InputSite>(site)),
                          options.compute);
      decoder.set_tap([&](int32_t, InputSite site, const float* x, int64_t m, int64_t) {
        sums[static_cast<size_t>(site)].add(x, m);
      });
    }
    streams.run_layer(layer);
    decoder.set_tap({});
    for (size_t site = 0; site < sums.size(); ++site)
      covariances.store(layer, static_cast<InputSite>(site), sums[site].take());
    progress.advance(1);
  }
  progress.end();
}

}  // namespace spear
