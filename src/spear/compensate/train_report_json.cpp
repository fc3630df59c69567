#include "spear/compensate/train_report_json.h"

#include <utility>

#include "spear/base/json.h"

namespace spear {
namespace {

// [step, loss] or [step, loss, held-out KL]
Json curve_json(const std::vector<LossPoint>& curve) {
  Json points = Json::array();
  for (const LossPoint& point : curve) {
    Json one = {point.step, point.loss};
    if (point.held_out >= 0) one.push_back(point.held_out);
    points.push_back(std::move(one));
  }
  return points;
}

StageReport stage_from(const Json& from) {
  StageReport stage;
  stage.name = from.at("name");
  stage.held_out_before = from.at("held_out_before");
  stage.held_out_after = from.at("held_out_after");
  stage.best_step = from.at("best_step");
  stage.seconds = from.at("seconds");
  for (const Json& point : from.at("curve"))
    stage.curve.push_back(
        {point.at(0), point.at(1), point.size() > 2 ? point.at(2).get<double>() : -1.0});
  return stage;
}

}  // namespace

Json to_json(const TrainReport& report) {
  Json stages = Json::array();
  for (const StageReport& stage : report.stages)
    stages.push_back({{"name", stage.name},
                      {"held_out_before", stage.held_out_before},
                      {"held_out_after", stage.held_out_after},
                      {"best_step", stage.best_step},
                      {"seconds", stage.seconds},
                      {"curve", curve_json(stage.curve)}});
  return {{"stages", std::move(stages)},
          {"dropped", report.dropped},
          {"freed_bytes", report.freed_bytes},
          {"ranks_added", report.ranks_added}};
}

std::optional<TrainReport> train_report_from_json(const Json& json) {
  try {
    TrainReport report;
    for (const Json& stage : json.at("stages")) report.stages.push_back(stage_from(stage));
    report.dropped = json.at("dropped");
    report.freed_bytes = json.at("freed_bytes");
    report.ranks_added = json.at("ranks_added");
    return report;
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

}  // namespace spear
