// Which modules hurt: each linear module quantized alone, everything else in full precision, and
// what that does to the final hidden states (1 − linear CKA) and to the output distribution (mean
// KL).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/host_tensor.h"
#include "spear/base/progress.h"
#include "spear/model/calibration.h"
#include "spear/model/decoder.h"

namespace spear {

struct ModuleDamage {
  ModuleId id;
  double cka = 0;  // 1 − CKA, noise floor not taken off
  double kl = 0;   // nats, mean over the scored positions
};

struct DamageReport {
  std::string model;       // name of the reference
  std::string model_hash;  // sha256 of its files
  std::string quantizer;   // "rtn, 4 bits, per channel"
  std::string sequences_hash;
  int64_t sequences = 0, length = 0;
  int64_t kl_stride = 8;  // every how many positions KL was measured
  double noise_floor =
      0;  // 1 − CKA of the reference against itself with the tokens in another batch order
  std::vector<ModuleDamage> modules;  // by ModuleId::index()

  [[nodiscard]] std::vector<double> cka_damages() const;  // noise floor taken off, never negative
  [[nodiscard]] std::vector<double> kl_damages() const;
};

struct DiagnoseOptions {
  int64_t kl_stride = 8;
  int64_t batch = 8;  // sequences run together
  std::filesystem::path
      state_file;  // finished modules are kept here and not run again; empty: nowhere
};

// The weight of a module after quantizing it alone, in the basis of the reference, [n, k] F32.
using QuantizedAlone = std::function<HostTensor(const ModuleId&)>;

// Runs a restart at the changed layer for every module. `head` fields of the report (model, hash,
// quantizer) are taken from `report`, its measurements are filled. Throws Failure(kInterrupted)
// when progress asks to stop, after saving.
void diagnose(Decoder& reference, const TokenSequences& tokens, const QuantizedAlone& quantize,
              const DiagnoseOptions& options, ThreadPool& pool, Progress& progress,
              DamageReport& report);

std::string to_json_text(const DamageReport& report);
Result<DamageReport> damage_report_from_json_text(std::string_view text, std::string_view source);
// A table for people: the worst modules, then means by kind of module.
std::string to_table(const DamageReport& report, int64_t worst = 15);

}  // namespace spear
