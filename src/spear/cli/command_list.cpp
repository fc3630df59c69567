#include <algorithm>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "spear/base/json.h"
#include "spear/cli/commands.h"
#include "spear/cli/text.h"
#include "spear/hub/model_cache.h"

namespace spear {
namespace {

std::string as_json(const std::vector<PulledModel>& models) {
  Json list = Json::array();
  for (const PulledModel& m : models)
    list.push_back({{"name", m.name},
                    {"bytes", m.bytes()},
                    {"source", m.source},
                    {"revision", m.revision},
                    {"licence", m.licence},
                    {"path", m.path().string()}});
  return json_text({{"models", list}});
}

std::string as_table(const std::vector<PulledModel>& models) {
  size_t name_width = 4;
  for (const PulledModel& m : models) name_width = std::max(name_width, m.name.size());
  std::string text = fmt::format("{:<{}}  {:>8}  {}\n", "NAME", name_width, "SIZE", "SOURCE, PATH");
  for (const PulledModel& m : models)
    text +=
        fmt::format("{:<{}}  {:>8}  {} ({})\n{:{}}  {}\n", m.name, name_width, size_text(m.bytes()),
                    m.source, m.revision, "", name_width + 10, m.path().string());
  return text;
}

int run(bool names_only, CommandContext& context) {
  const std::vector<PulledModel> models = ModelCache(context.environment.cache_dir).list();
  if (names_only) {
    for (const PulledModel& m : models) print_out(m.name + "\n");
  } else if (context.options.json) {
    print_out(as_json(models));
  } else if (models.empty()) {
    print_out("no models yet; `spear pull smollm2-135m` obtains one\n");
  } else {
    print_out(as_table(models));
  }
  return 0;
}

}  // namespace

Command list_command() {
  return {.name = "list",
          .summary = "Show the models in the cache",
          .description = "Each with its size, where it came from, and its path.",
          .examples = {{"spear list", "A table for people."},
                       {"spear list --json", "The same for programs, with sizes in bytes."}},
          .declare = [](CLI::App& app) -> RunCommand {
            auto names = std::make_shared<bool>(false);
            app.add_flag("--names", *names, "Only the names, one a line");
            return [names](CommandContext& context) { return run(*names, context); };
          }};
}

}  // namespace spear
