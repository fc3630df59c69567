// What clients of the server are told of a model. Pure function of an opened model.
#pragma once

#include <string>

#include "spear/cli/open_model.h"
#include "spear/serve/served_model.h"

namespace spear {

// `name`: what clients call it; empty: its file's name.
ModelFacts served_facts(const OpenedModel& model, const std::string& name);

}  // namespace spear
