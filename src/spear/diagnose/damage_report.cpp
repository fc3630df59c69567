#include "spear/diagnose/damage_report.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "spear/base/json.h"
#include "spear/diagnose/placement.h"

namespace spear {

std::vector<double> DamageReport::cka_damages() const {
  std::vector<double> out;
  for (const ModuleDamage& m : modules) out.push_back(std::max(0.0, m.cka - noise_floor));
  return out;
}

std::vector<double> DamageReport::kl_damages() const {
  std::vector<double> out;
  for (const ModuleDamage& m : modules) out.push_back(m.kl);
  return out;
}

std::string to_json_text(const DamageReport& report) {
  Json json = {{"model", report.model},         {"model_hash", report.model_hash},
               {"quantizer", report.quantizer}, {"sequences_hash", report.sequences_hash},
               {"sequences", report.sequences}, {"length", report.length},
               {"kl_stride", report.kl_stride}, {"noise_floor", report.noise_floor},
               {"modules", Json::array()}};
  for (const ModuleDamage& m : report.modules)
    json["modules"].push_back({{"name", name_of(m.id)},
                               {"layer", m.id.layer},
                               {"module", std::string(short_name(m.id.module))},
                               {"cka_damage", m.cka},
                               {"kl", m.kl}});
  return json.dump(1) + "\n";
}

namespace {

Result<ModuleDamage> module_from_json(const Json& json, size_t index, std::string_view source) {
  const auto bad = [&] {
    return fail(
        ErrorCode::kBadFile,
        fmt::format("{}: modules[{}] is not {{\"layer\", \"module\", \"cka_damage\", \"kl\"}}",
                    source, index));
  };
  if (!json.is_object() || !json.contains("layer") || !json["layer"].is_number_integer() ||
      !json.contains("module") || !json["module"].is_string() || !json.contains("cka_damage") ||
      !json["cka_damage"].is_number() || !json.contains("kl") || !json["kl"].is_number())
    return bad();
  ModuleDamage damage;
  damage.cka = json["cka_damage"].get<double>();
  damage.kl = json["kl"].get<double>();
  const std::string name = json["module"].get<std::string>();
  const auto found = std::find_if(kModules.begin(), kModules.end(),
                                  [&](Module m) { return short_name(m) == name; });
  const auto layer = json["layer"].get<int64_t>();
  if (found == kModules.end() || layer < 0 || layer > 100000) return bad();
  damage.id = {static_cast<int32_t>(layer), *found};
  if (damage.id.index() != static_cast<int64_t>(index))
    return fail(ErrorCode::kBadFile,
                fmt::format("{}: modules[{}] is {}, expected the modules in order", source, index,
                            name_of(damage.id)));
  return damage;
}

}  // namespace

Result<DamageReport> damage_report_from_json_text(std::string_view text, std::string_view source) {
  Result<Json> parsed = parse_json(text, source);
  if (!parsed) return tl::unexpected(parsed.error());
  const Json& json = *parsed;
  if (!json.is_object() || !json.contains("modules") || !json["modules"].is_array() ||
      json["modules"].empty())
    return fail(ErrorCode::kBadFile,
                fmt::format("{}: not a diagnosis: no array 'modules'", source));
  DamageReport report;
  const auto text_of = [&](const char* key) {
    return json.contains(key) && json[key].is_string() ? json[key].get<std::string>()
                                                       : std::string();
  };
  const auto number_of = [&](const char* key) {
    return json.contains(key) && json[key].is_number() ? json[key].get<double>() : 0.0;
  };
  report.model = text_of("model");
  report.model_hash = text_of("model_hash");
  report.quantizer = text_of("quantizer");
  report.sequences_hash = text_of("sequences_hash");
  report.sequences = static_cast<int64_t>(number_of("sequences"));
  report.length = static_cast<int64_t>(number_of("length"));
  report.kl_stride = static_cast<int64_t>(number_of("kl_stride"));
  report.noise_floor = number_of("noise_floor");
  for (size_t i = 0; i < json["modules"].size(); ++i) {
    Result<ModuleDamage> damage = module_from_json(json["modules"][i], i, source);
    if (!damage) return tl::unexpected(damage.error());
    report.modules.push_back(*damage);
  }
  if (report.modules.size() % kModulesPerLayer != 0)
    return fail(ErrorCode::kBadFile, fmt::format("{}: {} modules, expected a multiple of {}",
                                                 source, report.modules.size(), kModulesPerLayer));
  return report;
}

std::string to_table(const DamageReport& report, int64_t worst) {
  const std::vector<double> cka = report.cka_damages();
  std::vector<size_t> order(cka.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return cka[a] > cka[b]; });
  std::string out = fmt::format("{:<32} {:>12} {:>12}\n", "module", "1 - CKA", "KL (nats)");
  for (size_t i = 0; i < std::min(order.size(), static_cast<size_t>(worst)); ++i)
    out += fmt::format("{:<32} {:>12.3e} {:>12.3e}\n", name_of(report.modules[order[i]].id),
                       cka[order[i]], report.modules[order[i]].kl);
  out += fmt::format("\n{:<32} {:>12} {:>12}\n", "mean by kind", "1 - CKA", "KL (nats)");
  for (const Module module : kModules) {
    double damage = 0;
    double kl = 0;
    double count = 0;
    for (size_t i = 0; i < cka.size(); ++i)
      if (report.modules[i].id.module == module) {
        damage += cka[i];
        kl += report.modules[i].kl;
        ++count;
      }
    out +=
        fmt::format("{:<32} {:>12.3e} {:>12.3e}\n", short_name(module), damage / count, kl / count);
  }
  const Cover cover = choose_cover(cka);
  out += fmt::format(
      "\nnormalised entropy {:.3f}, cover target {:.2f}: {} of {} modules; Spearman of CKA damage "
      "and KL {:.3f}\n",
      cover.entropy, cover.tau_effective, cover.count, cka.size(),
      spearman(cka, report.kl_damages()));
  return out;
}

}  // namespace spear
