#include "spear/compensate/teacher_states.h"

#include <algorithm>
#include <cstring>
#include <system_error>

#include <fmt/format.h>

#include "spear/base/atomic_file.h"
#include "spear/base/check.h"
#include "spear/base/hash.h"

namespace spear {
namespace {

struct FileHeader {
  char magic[8] = {'S', 'P', 'E', 'A', 'R', 'T', 'C', 'H'};
  int64_t sequences = 0, length = 0, hidden = 0;
  uint64_t checksum = 0;
  char padding[24] = {};
};
static_assert(sizeof(FileHeader) == 64);

bool is_whole(const MappedFile& file, const FileHeader& expected) {
  const auto bytes = file.bytes();
  const auto rows = static_cast<size_t>(expected.sequences * expected.length * expected.hidden) *
                    sizeof(uint16_t);
  if (bytes.size() != sizeof(FileHeader) + rows) return false;
  FileHeader header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  return std::memcmp(header.magic, expected.magic, sizeof(header.magic)) == 0 &&
         header.sequences == expected.sequences && header.length == expected.length &&
         header.hidden == expected.hidden &&
         header.checksum == xxh3(bytes.subspan(sizeof(FileHeader)));
}

// Runs whole sequences through the reference and keeps their final hidden states.
class Gatherer {
 public:
  Gatherer(Decoder& decoder, const TokenSequences& tokens, ThreadPool& pool)
      : decoder_(decoder),
        tokens_(tokens),
        pool_(pool),
        together_(std::max<int64_t>(1, 2048 / tokens.length)),
        cache_(decoder.backend(), decoder.config(), together_, tokens.length, false),
        device_(decoder.backend().allocate(
            static_cast<size_t>(together_ * tokens.length * decoder.config().hidden_size) *
            sizeof(float))) {}

  std::vector<uint16_t> run(int64_t first, int64_t count) {
    const int64_t width = tokens_.length * decoder_.config().hidden_size;
    std::vector<uint16_t> out(static_cast<size_t>(count * width));
    std::vector<float> host(static_cast<size_t>(together_ * width));
    for (int64_t done = 0; done < count; done += together_) {
      const int64_t sequences = std::min(together_, count - done);
      cache_.reset_all();
      std::vector<AttentionSequence> rows;
      for (int64_t s = 0; s < sequences; ++s)
        rows.push_back(cache_.append(s, s * tokens_.length, tokens_.length));
      const auto ids = std::span(tokens_.ids)
                           .subspan(static_cast<size_t>((first + done) * tokens_.length),
                                    static_cast<size_t>(sequences * tokens_.length));
      decoder_.forward({ids, rows}, cache_, device_.as<float>());
      decoder_.backend().download(host.data(), device_.as<float>(),
                                  static_cast<size_t>(sequences * width) * sizeof(float));
      uint16_t* to = out.data() + done * width;
      pool_.parallel_for(sequences * width, 1 << 15, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) to[i] = bf16_from_float(host[static_cast<size_t>(i)]);
      });
    }
    return out;
  }

 private:
  Decoder& decoder_;
  const TokenSequences& tokens_;
  ThreadPool& pool_;
  int64_t together_;
  KvCache cache_;
  DeviceBuffer device_;
};

void write_states(const std::filesystem::path& path, FileHeader header,
                  std::span<const uint16_t> states) {
  header.checksum = xxh3(std::as_bytes(states));
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&header, 1)));
  file.write(std::as_bytes(states));
  file.commit();
}

}  // namespace

TeacherStates TeacherStates::gather(Decoder& decoder, const std::string& model_hash,
                                    const TokenSequences& tokens, Compute compute,
                                    const std::filesystem::path& cache, ThreadPool& pool,
                                    Progress& progress) {
  expects(tokens.count > 0 && tokens.length > 0);
  const std::filesystem::path folder =
      cache / fmt::format("teacher-{:.16}-{:.16}-{}", model_hash, tokens.hash(),
                          compute == Compute::kBF16 ? "bf16" : "f32");
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error)
    throw Failure(ErrorCode::kIo,
                  fmt::format("cannot make the folder {}: {}", folder.string(), error.message()));
  TeacherStates states;
  states.count_ = tokens.count;
  states.length_ = tokens.length;
  states.hidden_ = decoder.config().hidden_size;
  Gatherer gatherer(decoder, tokens, pool);
  progress.begin("reference states", tokens.count);
  for (int64_t first = 0; first < tokens.count; first += kSequencesPerFile) {
    FileHeader header;
    header.sequences = std::min(kSequencesPerFile, tokens.count - first);
    header.length = states.length_;
    header.hidden = states.hidden_;
    const std::filesystem::path path = folder / fmt::format("{:06}.states", first);
    auto file = MappedFile::open(path);
    if (!file || !is_whole(*file, header)) {
      if (progress.stop_requested())
        throw Failure(ErrorCode::kInterrupted,
                      "stopped while the reference states were gathered; the same command "
                      "goes on from here");
      write_states(path, header, gatherer.run(first, header.sequences));
      file = MappedFile::open(path);
    }
    states.files_.push_back(value_or_throw(std::move(file)));
    progress.advance(header.sequences);
  }
  progress.end();
  return states;
}

std::span<const uint16_t> TeacherStates::row(int64_t sequence) const {
  expects(sequence >= 0 && sequence < count_);
  const auto width = static_cast<size_t>(length_ * hidden_);
  const auto bytes = files_[static_cast<size_t>(sequence / kSequencesPerFile)].bytes();
  const auto* rows = reinterpret_cast<const uint16_t*>(bytes.data() + sizeof(FileHeader));
  return {rows + static_cast<size_t>(sequence % kSequencesPerFile) * width, width};
}

}  // namespace spear
