#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "spear/base/atomic_file.h"
#include "spear/base/json.h"
#include "spear/cli/commands.h"
#include "spear/cli/diagnosis_job.h"
#include "spear/cli/machine.h"
#include "spear/cli/open_model.h"
#include "spear/cli/text.h"
#include "spear/report/plots.h"
#include "spear/report/style.h"

namespace spear {
namespace {

struct DiagnoseSettings {
  std::string model;
  std::vector<std::string> compare;
  std::string output, picture, costs;
  bool quick = false;
  int64_t sequences = 0, length = 0;  // 0: as the diagnosis has it
  DiagnosisSettings diagnosis;
  PlacementSettings placement;
  MachineSettings machine;
};

DamageReport read_report(const std::string& file) {
  return value_or_throw(damage_report_from_json_text(value_or_throw(read_text_file(file)), file));
}

int compare(const std::vector<std::string>& files, CommandContext& context) {
  const DamageReport a = read_report(files[0]);
  const DamageReport b = read_report(files[1]);
  if (a.modules.size() != b.modules.size())
    throw Failure(
        ErrorCode::kUsage,
        fmt::format("{} has {} modules and {} has {}: diagnoses of models of one shape expected",
                    files[0], a.modules.size(), files[1], b.modules.size()));
  const Overlap cka = compare_damages(a.cka_damages(), b.cka_damages());
  const Overlap kl = compare_damages(a.kl_damages(), b.kl_damages());
  if (context.options.json) {
    const auto json = [](const Overlap& o) {
      return Json{{"spearman", o.spearman}, {"jaccard", o.jaccard}, {"mismatch", o.mismatch}};
    };
    print_out(json_text({{"a", files[0]}, {"b", files[1]}, {"cka", json(cka)}, {"kl", json(kl)}}));
    return 0;
  }
  print_out(fmt::format("{:<10} {:>10} {:>22} {:>10}\n", "", "Spearman", "Jaccard of top 30 %",
                        "mismatch"));
  print_out(fmt::format("{:<10} {:>10.3f} {:>22.3f} {:>10.3f}\n", "1 - CKA", cka.spearman,
                        cka.jaccard, cka.mismatch));
  print_out(fmt::format("{:<10} {:>10.3f} {:>22.3f} {:>10.3f}\n", "KL", kl.spearman, kl.jaccard,
                        kl.mismatch));
  return 0;
}

Json placement_json(const Placement& placement, const PlacementSettings& settings) {
  Json chosen = Json::array();
  for (const int64_t index : placement.modules)
    chosen.push_back(name_of(ModuleId{static_cast<int32_t>(index / kModulesPerLayer),
                                      kModules[static_cast<size_t>(index % kModulesPerLayer)]}));
  return {{"entropy", placement.cover.entropy},  {"tau_effective", placement.cover.tau_effective},
          {"count", placement.cover.count},      {"rank", settings.rank},
          {"cost_table", settings.costs.device}, {"chosen", chosen}};
}

std::string placement_text(const Json& placement) {
  std::string names;
  for (const Json& name : placement.at("chosen")) names += "\n  " + name.get<std::string>();
  return fmt::format("\nplacement by damage against cost ({}), {} modules:{}\n",
                     placement.at("cost_table").get<std::string>(),
                     placement.at("count").get<int64_t>(), names);
}

// An SVG file of its own: what the report draws inline, with the style it takes from the page.
std::string picture_of(const DamageReport& report) {
  std::string svg = damage_map(report, DamageKind::kCka, "damage");
  svg.insert(svg.find('>') + 1, "<style>" + std::string(report_style()) + "</style>");
  return svg + "\n";
}

DiagnosisSettings diagnosis_settings(const DiagnoseSettings& s, const CommandContext& context) {
  DiagnosisSettings d = s.diagnosis;
  if (s.quick) make_quick(d);
  if (s.sequences > 0) d.sequences = s.sequences;
  if (s.length > 0) d.length = s.length;
  if (context.options.seed != 0) d.seed = context.options.seed;
  d.cache = context.environment.cache_dir / "diagnose";
  return d;
}

int run(DiagnoseSettings& s, CommandContext& context) {
  if (!s.compare.empty()) return compare(s.compare, context);
  if (s.model.empty())
    throw Failure(ErrorCode::kUsage, "a MODEL, or --compare with two diagnoses, is required");
  const DiagnosisSettings diagnosis = diagnosis_settings(s, context);
  if (!s.costs.empty())
    s.placement.costs =
        value_or_throw(cost_table_from_json_text(value_or_throw(read_text_file(s.costs)), s.costs));
  Machine machine = make_machine(s.machine, context);
  const OpenedModel model = open_reference(s.model, context.environment, s.machine.dtype(),
                                           *machine.pool, context.progress, "diagnosed");
  const DamageReport report =
      run_diagnosis(*model.dense, diagnosis, machine, s.machine.arithmetic(), context.progress);
  Json json = value_or_throw(parse_json(to_json_text(report), "diagnosis"));
  json["placement"] =
      placement_json(place_compensators(report, model.config(), s.placement), s.placement);
  if (!s.output.empty()) write_file_atomically(s.output, json_text(json));
  if (!s.picture.empty()) write_file_atomically(s.picture, picture_of(report));
  print_out(context.options.json ? json_text(json)
                                 : to_table(report) + placement_text(json.at("placement")));
  return 0;
}

void declare_options(CLI::App& app, DiagnoseSettings& s) {
  app.add_option("MODEL", s.model, "The full-precision model")->type_name("MODEL");
  app.add_flag("--quick", s.quick, "A small sample: a few minutes");
  app.add_option("--compare", s.compare, "Print how far two diagnoses (JSON files) agree")
      ->expected(2)
      ->type_name("FILE");
  app.add_option("-o,--output", s.output, "Write the JSON to a file as well")->type_name("FILE");
  app.add_option("--picture", s.picture, "Write a map of the damage, layer by module, as SVG")
      ->type_name("FILE");
  app.add_option("--bits", s.diagnosis.grid.bits, "Bits that each module alone is rounded to")
      ->type_name("N")
      ->check(CLI::IsMember({2, 3, 4, 8}));
  app.add_option("--group", s.diagnosis.grid.group, "Weights that share a scale; 0: a whole row")
      ->type_name("N")
      ->check(CLI::IsMember({0, 32, 64, 128, 256}));
  app.add_flag("--clip", s.diagnosis.grid.search, "Search the range of each row or group");
  app.add_option("--sequences", s.sequences, "Sequences sampled from the model; 0: 64, quick 16")
      ->type_name("N");
  app.add_option("--length", s.length, "Tokens of each; 0: 256, quick 96")->type_name("N");
  app.add_option("--costs", s.costs, "A table of what a compensator costs, JSON")
      ->type_name("FILE");
  app.add_option("--rank", s.placement.rank, "Rank of the compensators that the costs are of")
      ->type_name("N")
      ->check(CLI::Range(1, 4096));
  app.add_option("--latency-weight", s.placement.options.latency_weight,
                 "Weight of the cost against the damage")
      ->type_name("X")
      ->check(CLI::Range(0.0, 1000.0));
  add_machine_options(app, s.machine);
}

}  // namespace

Command diagnose_command() {
  return {
      .name = "diagnose",
      .summary = "Find the modules whose quantization hurts most",
      .description =
          "Each linear module is quantized alone, everything else in full precision, and run on "
          "text that the model itself wrote; its damage is 1 - CKA of the final hidden states, "
          "and the divergence of the predictions beside it. An interrupted diagnosis goes on "
          "where it stopped.",
      .examples = {{"spear diagnose smollm2-135m --output damage.json",
                    "Every module; the JSON feeds `spear report`."},
                   {"spear diagnose smollm2-135m --quick", "A first look in minutes."},
                   {"spear diagnose --compare a.json b.json",
                    "Do two diagnoses name the same modules?"}},
      .declare = [](CLI::App& app) -> RunCommand {
        auto settings = std::make_shared<DiagnoseSettings>();
        declare_options(app, *settings);
        return [settings](CommandContext& context) { return run(*settings, context); };
      }};
}

}  // namespace spear
