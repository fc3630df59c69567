// Only what training changes in a compressed model, as a small file: scales, zero points, biases,
// compensators and norms, without the codes. It can be applied to a base that was rebuilt bit for
// bit elsewhere from the same model, options and seeds; the hash of the base's codes, in the file,
// is checked first. The container is that of a .spear file.
#pragma once

#include <filesystem>
#include <string>

#include "spear/base/error.h"
#include "spear/model/quantized_model.h"

namespace spear {

// SHA-256 over geometry and codes of all linears, embedding, head and the rotation.
std::string base_hash(const QuantizedModel& model);

// Writes atomically; throws Failure(kIo). `provenance` (JSON or empty) is kept beside.
void export_parameters(const std::filesystem::path& path, const QuantizedModel& model,
                       const std::string& provenance);

// Puts the parameters of a file into a base and returns the provenance. kBadFile: damaged, or not a
// file of trained parameters; kUsage: of another base, both hashes named. A refused file leaves the
// model as it was.
Result<std::string> apply_parameters(const std::filesystem::path& path, QuantizedModel& model);

}  // namespace spear
