// The weights of a compiled decoder as the processor's team reads them: one stream of bytes a
// thread, in the order of execution, cut so that every thread has its share of each product. Built
// once; const afterwards.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "spear/backend/decoder_program.h"
#include "spear/base/thread_pool.h"
#include "spear/kernels/cpu/packed/packed_kernels.h"
#include "spear/kernels/layout/packed_linear.h"

namespace spear {

// One module, or gate and up as a pair.
struct JobPart {
  std::vector<LinearSource> sources;
  PackedPart packed;
  int64_t column = 0;          // of its first output among the job's outputs
  bool apart = false;          // its outputs stand in the job's second array (keys and values)
  int32_t module[2] = {0, 0};  // of both halves of a panel, among the job's modules
};

// The compensator of a module of a job.
struct JobModule {
  int32_t rank = 0;
  int32_t row = 0;          // of its first row of A among the job's
  int32_t rank_offset = 0;  // of its ranks among a token's: even
  cpu::GateWeights gate;
  std::vector<float> b_scales;  // [rank], padded with zeros to whole vectors
  std::vector<float> gate_memory;
};

// A run of panels of one part.
struct PanelRange {
  size_t part = 0;
  int64_t first = 0, count = 0;
  const uint8_t* stream = nullptr;
};

struct JobShard {
  int32_t first_rank = 0, rank_count = 0;  // rows of A of this shard
  const uint8_t* ranks = nullptr;
  std::vector<PanelRange> ranges;
  const uint8_t* end = nullptr;
};

// Modules that share an input.
struct Job {
  std::vector<JobPart> parts;
  std::vector<JobModule> modules;
  std::vector<JobShard> shards;
  cpu::InputShape input;
  int32_t rank_rows = 0;        // rows of A of all modules
  int32_t rank_stride = 0;      // of a token's ranks
  std::vector<float> a_scales;  // [rank_rows]
  cpu::Epilogue epilogue = cpu::Epilogue::kStore;
  bool normalize = false;
  const float* norm = nullptr;
};

struct LayerJobs {
  Job qkv, o, gate_up, down;
};

class ProgramLayout {
 public:
  // Null where a module does not fit; `why` names it.
  static std::unique_ptr<ProgramLayout> build(const DecoderSpec& spec, Activations activations,
                                              ThreadPool& pool, std::string* why);

  [[nodiscard]] const std::vector<LayerJobs>& layers() const { return layers_; }
  [[nodiscard]] const Job* head() const { return head_.parts.empty() ? nullptr : &head_; }
  [[nodiscard]] size_t bytes() const { return bytes_; }
  // f(job) for every job in the order of execution.
  template <class F>
  void each_job(F f) {
    for (LayerJobs& layer : layers_)
      for (Job* job : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down}) f(*job);
    if (!head_.parts.empty()) f(head_);
  }

 private:
  ProgramLayout() = default;
  void pack(ThreadPool& pool);

  struct Release {
    void operator()(uint8_t* bytes) const;
  };
  std::vector<LayerJobs> layers_;
  Job head_;
  std::vector<std::unique_ptr<uint8_t, Release>> shards_;
  size_t bytes_ = 0;
};

}  // namespace spear
