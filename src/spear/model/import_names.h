// The tensors of a decoder by our names, with the shapes that its configuration says. Importers
// translate the names of their files to these; Checkpoint::open compares the two lists. Pure
// functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "spear/base/error.h"
#include "spear/base/tensor_view.h"
#include "spear/model/checkpoint.h"
#include "spear/model/config.h"

namespace spear {

struct ExpectedTensor {
  std::string name;  // "layers.3.mlp.down_proj.weight"
  Shape shape;
};

std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config);

// "llama, mistral, qwen2, qwen3": for refusals.
std::string known_architectures();
bool is_known_architecture(std::string_view name);

// What a file calls its model, for people: printable ASCII, at most 80 bytes.
std::string plain_name(std::string_view text);

// `tensors` sorted by name holds exactly what the configuration needs, each of the right shape.
Result<void> check_tensors(const ModelConfig& config, const std::vector<StoredTensor>& tensors,
                           std::string_view source);

}  // namespace spear
