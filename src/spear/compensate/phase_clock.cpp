#include "spear/compensate/phase_clock.h"

#include <algorithm>
#include <utility>

#include "spear/base/atomic_file.h"
#include "spear/base/json.h"

namespace spear {

PhaseClock::PhaseClock(std::filesystem::path file) : file_(std::move(file)) {
  const auto text = read_text_file(file_);
  if (!text) return;
  const auto json = parse_json(*text, file_.string());
  if (!json || !json->is_object()) return;
  for (const auto& [name, seconds] : json->items())
    if (seconds.is_number()) phases_.push_back({name, seconds.get<double>()});
}

void PhaseClock::save() const {
  Json json = Json::object();
  for (const PhaseTime& phase : phases_) json[phase.name] = phase.seconds;
  write_file_atomically(file_, json.dump());
}

void PhaseClock::add(const std::string& name, double seconds) {
  auto phase = std::find_if(phases_.begin(), phases_.end(),
                            [&](const PhaseTime& p) { return p.name == name; });
  if (phase == phases_.end()) phase = phases_.insert(phases_.end(), {name, 0});
  phase->seconds += seconds;
}

}  // namespace spear
