// Which path a compressed model takes when none is named. Activations in 8 bits may raise an
// artifact's KL by at most 5 % of it; where they do more, it runs with exact activations.
#pragma once

#include <string>

#include "spear/cli/open_model.h"

namespace spear {

// KL divergence from the reference on the same text, with both kinds of activations.
struct ActivationCost {
  double kl_exact = 0, kl_int8 = 0;
};
// Kept in the certificate as "activations".
std::string with_activation_cost(const std::string& certificate, const ActivationCost& cost);

// `name`: "engine", "exact", "ref"; "auto": what the certificate's measurement allows. Without
// one, 8 bits are taken where a rotation has flattened the activations, and exact ones elsewhere.
DecoderPath path_of(const std::string& name, const OpenedModel& model);

}  // namespace spear
