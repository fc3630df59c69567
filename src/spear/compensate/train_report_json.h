// What training reports, as JSON: kept in the work folder and in the artifact's provenance.
#pragma once

#include <optional>

#include "spear/base/json_fwd.h"
#include "spear/compensate/train_model.h"

namespace spear {

Json to_json(const TrainReport& report);
// Empty: a field is missing or of another type.
std::optional<TrainReport> train_report_from_json(const Json& json);

}  // namespace spear
