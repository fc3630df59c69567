#include "spear/cli/model_path.h"

#include <optional>

#include <fmt/format.h>

#include "spear/base/json.h"
#include "spear/base/log.h"

namespace spear {
namespace {

constexpr double kMostIncrease = 0.05;

// Nothing where a certificate does not say; certificates are files' texts, so anything may stand
// there.
std::optional<double> measured_increase(const std::string& certificate) {
  if (certificate.empty()) return {};
  const Result<Json> json = parse_json(certificate, "certificate");
  if (!json || !json->is_object()) return {};
  const auto at = json->find("activations");
  if (at == json->end() || !at->is_object()) return {};
  const auto number = [&](const char* key) {
    const auto value = at->find(key);
    return value != at->end() && value->is_number() ? value->get<double>() : 0.0;
  };
  const double exact = number("kl_exact");
  if (!(exact > 0)) return {};
  return number("kl_int8") / exact - 1;
}

}  // namespace

std::string with_activation_cost(const std::string& certificate, const ActivationCost& cost) {
  Json json = value_or_throw(parse_json(certificate, "certificate"));
  json["activations"] = {{"kl_exact", cost.kl_exact}, {"kl_int8", cost.kl_int8}};
  return json.dump(2) + "\n";
}

DecoderPath path_of(const std::string& name, const OpenedModel& model) {
  if (name == "ref" || model.file == nullptr) return DecoderPath::kPlain;
  if (name == "engine") return DecoderPath::kFused;
  if (name == "exact") return DecoderPath::kFusedExact;
  const std::optional<double> increase = measured_increase(model.file->texts.certificate);
  const bool eight = increase ? *increase <= kMostIncrease : model.file->model.rotation.has_value();
  log(LogLevel::kInfo,
      fmt::format("{}: activations {}: {}", model.path.string(),
                  eight ? "in 8 bits" : "in two digits of 8 bits",
                  increase ? fmt::format("8 bits change its KL by {:+.1f} %", 100 * *increase)
                           : "not measured for this file, and the model is " +
                                 std::string(eight ? "rotated" : "not rotated")));
  return eight ? DecoderPath::kFused : DecoderPath::kFusedExact;
}

}  // namespace spear
