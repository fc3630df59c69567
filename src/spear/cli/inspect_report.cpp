#include "spear/cli/inspect_report.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "spear/base/hash.h"
#include "spear/base/printable.h"
#include "spear/cli/text.h"
#include "spear/eval/evaluate.h"
#include "spear/model/modules.h"

namespace spear {
namespace {

Json section_json(std::string_view text, const char* name, const std::filesystem::path& path) {
  if (text.empty()) return nullptr;
  return value_or_throw(parse_json(text, fmt::format("{}: section {}", path.string(), name)));
}

Json config_json(const ModelConfig& config) {
  return value_or_throw(parse_json(to_json_text(config), "configuration"));
}

int64_t parameters_of_linears(const ModelConfig& c) {
  const int64_t attention = c.hidden_size * (2 * c.q_size() + 2 * c.kv_size());
  return c.num_hidden_layers * (attention + 3 * c.hidden_size * c.intermediate_size);
}

int64_t parameters(const ModelConfig& c) {
  const int64_t tables = c.tie_word_embeddings ? 1 : 2;
  return parameters_of_linears(c) + tables * c.vocab_size * c.hidden_size;
}

Json bytes_json(const ModelFile& file) {
  const ByteParts parts = bytes_of(file.model);
  const auto total = static_cast<int64_t>(parts.total);
  const auto plain = static_cast<int64_t>(plain_w4_bytes(file.model.config));
  Json json = {{"file", file.artifact->file().bytes().size()}};
  json.update(to_json(parts));
  json["plain_w4"] = plain;
  json["extra"] = total - plain;
  json["extra_share"] = static_cast<double>(total - plain) / static_cast<double>(plain);
  json["bits_per_weight"] = bits_per_weight(file.model);
  return json;
}

std::string precision_text(const QuantizedMatrix& m) {
  if (m.bits == 16) return "bf16";
  const char* zeros[] = {"symmetric", "4-bit zeros", "8-bit zeros", "F16 zeros"};
  const std::string group = m.group == m.k ? "per channel" : fmt::format("groups of {}", m.group);
  return fmt::format("{} bits, {}, {}", m.bits, group, zeros[static_cast<int>(m.zero_kind)]);
}

// How many linears are stored in which way.
Json precisions_json(const QuantizedModel& model) {
  std::map<std::string, int> count;
  for (const QuantizedLayer& layer : model.layers)
    for (const QuantizedLinear& linear : layer.linears) ++count[precision_text(linear.weight)];
  Json linears = Json::array();
  for (const auto& [text, n] : count) linears.push_back({{"stored", text}, {"linears", n}});
  return {{"linears", linears},
          {"embedding", precision_text(model.embedding)},
          {"head", model.head.empty() ? "tied to the embedding" : precision_text(model.head)},
          {"rotated", model.rotation.has_value()}};
}

Json compensators_json(const QuantizedModel& model) {
  Json list = Json::array();
  for (size_t i = 0; i < model.layers.size(); ++i)
    for (const Module module : kModules) {
      const auto& ec = model.layers[i].linear(module).compensator;
      if (!ec) continue;
      list.push_back({{"module", name_of(ModuleId{static_cast<int32_t>(i), module})},
                      {"rank", ec->rank},
                      {"factor_bits", ec->factor_bits},
                      {"gate", ec->gate_hidden},
                      {"bytes", ec->bytes()}});
    }
  return list;
}

Json sections_json(const Artifact& artifact) {
  Json list = Json::array();
  for (const ArtifactSection& s : artifact.sections())
    list.push_back({{"name", s.name},
                    {"offset", s.offset},
                    {"bytes", s.bytes.size()},
                    {"xxh3", fmt::format("{:016x}", s.checksum)}});
  return list;
}

std::string integer(const Json& value) {
  return std::to_string(value.get<int64_t>());
}

std::string config_text(const Json& d) {
  const Json& c = d.at("config");
  return fmt::format(
      "{} ({}): {} layers, hidden {}, MLP {}, {} heads of {} ({} for keys and values), "
      "vocabulary {}, context {}\n",
      printable(c.value("name", "")), c.value("architecture", ""),
      integer(c.at("num_hidden_layers")), integer(c.at("hidden_size")),
      integer(c.at("intermediate_size")), integer(c.at("num_attention_heads")),
      integer(c.at("head_dim")), integer(c.at("num_key_value_heads")), integer(c.at("vocab_size")),
      integer(c.at("max_position_embeddings")));
}

std::string bytes_text(const Json& b) {
  std::string text = "\nBytes by part\n";
  const int64_t total = std::max<int64_t>(b.at("total").get<int64_t>(), 1);
  for (const char* part : {"weights", "scales", "zeros", "compensators", "biases", "norms",
                           "embedding", "head", "other"}) {
    const auto bytes = b.at(part).get<int64_t>();
    if (bytes > 0)
      text += fmt::format("  {:<14}{:>12}  {:5.1f}%\n", part, bytes,
                          100.0 * static_cast<double>(bytes) / static_cast<double>(total));
  }
  text += fmt::format("  {:<14}{:>12}  (file: {})\n", "all tensors", b.at("total").get<int64_t>(),
                      integer(b.at("file")));
  text +=
      fmt::format("  {:+} bytes, {:+.2f}%, against the same model as plain W4 per channel ({})\n",
                  b.at("extra").get<int64_t>(), 100 * b.at("extra_share").get<double>(),
                  integer(b.at("plain_w4")));
  return text + fmt::format("  {:.3f} bits per weight of the linears, everything stored counted\n",
                            b.at("bits_per_weight").get<double>());
}

std::string precisions_text(const Json& d) {
  std::string text = "\nPrecision\n";
  const Json& p = d.at("precision");
  for (const Json& l : p.at("linears"))
    text += fmt::format("  {:>4} linears     {}\n", l.at("linears").get<int>(),
                        l.at("stored").get<std::string>());
  text += "  embedding        " + p.at("embedding").get<std::string>() + "\n";
  text += "  head             " + p.at("head").get<std::string>() + "\n";
  text +=
      fmt::format("  residual stream  {}\n", p.at("rotated").get<bool>() ? "rotated" : "as it was");
  const Json& list = d.at("compensators");
  int64_t least = 0;
  int64_t most = 0;
  for (const Json& ec : list) {
    const auto rank = ec.at("rank").get<int64_t>();
    least = least == 0 ? rank : std::min(least, rank);
    most = std::max(most, rank);
  }
  return text + (list.empty() ? std::string("  no compensators\n")
                              : fmt::format("  {} compensators, ranks {} to {}\n", list.size(),
                                            least, most));
}

// Objects as indented lines, "key: value"; what a person reads of provenance and certificate.
void append_tree(std::string& text, const Json& value, size_t indent) {
  for (const auto& [key, item] : value.items()) {
    text += std::string(indent, ' ') + (value.is_array() ? "-" : key + ":");
    if (item.is_structured() && !item.empty()) {
      text += "\n";
      append_tree(text, item, indent + 2);
    } else {
      text += " " + (item.is_string() ? item.get<std::string>() : item.dump()) + "\n";
    }
  }
}

std::string tree_text(const char* title, const Json& value) {
  if (value.is_null()) return fmt::format("\n{}: none stored\n", title);
  std::string text = fmt::format("\n{}\n", title);
  append_tree(text, value, 2);
  return text;
}

std::string sections_text(const Json& sections) {
  std::string text = "\nSections\n";
  for (const Json& s : sections)
    text += fmt::format("  {:<24}{:>12}{:>12}  {}\n", s.at("name").get<std::string>(),
                        s.at("offset").get<int64_t>(), s.at("bytes").get<int64_t>(),
                        s.at("xxh3").get<std::string>());
  return text;
}

}  // namespace

Json describe_artifact(const ModelFile& file, const std::filesystem::path& path) {
  return {{"path", path.string()},
          {"format", "spear"},
          {"version", file.artifact->version()},
          {"config", config_json(file.model.config)},
          {"parameters", parameters(file.model.config)},
          {"bytes", bytes_json(file)},
          {"precision", precisions_json(file.model)},
          {"compensators", compensators_json(file.model)},
          {"sections", sections_json(*file.artifact)},
          {"licence", file.texts.license.substr(0, file.texts.license.find('\n'))},
          {"provenance", section_json(file.texts.provenance, "provenance", path)},
          {"certificate", section_json(file.texts.certificate, "certificate", path)}};
}

Json describe_checkpoint(const Checkpoint& checkpoint) {
  const ModelConfig& config = checkpoint.config();
  return {{"path", checkpoint.path().string()},
          {"format", checkpoint.gguf() != nullptr ? "gguf" : "safetensors"},
          {"config", config_json(config)},
          {"parameters", parameters(config)},
          {"licence", checkpoint.license().substr(0, checkpoint.license().find('\n'))},
          {"chat_template", !checkpoint.chat_template().empty()},
          {"sha256", value_or_throw(checkpoint.content_hash())}};
}

std::string inspect_text(const Json& d) {
  std::string text = d.at("path").get<std::string>() + "\n" + config_text(d);
  text += fmt::format("{:.1f} M parameters; licence: {}\n",
                      static_cast<double>(d.at("parameters").get<int64_t>()) / 1e6,
                      printable(d.at("licence").get<std::string>()));
  if (d.at("format") != "spear")
    return text + fmt::format("format {}; chat template: {}; sha256 {}\n",
                              d.at("format").get<std::string>(),
                              d.at("chat_template").get<bool>() ? "yes" : "none",
                              d.at("sha256").get<std::string>());
  text += bytes_text(d.at("bytes")) + precisions_text(d);
  text += tree_text("How it was made", d.at("provenance"));
  text += tree_text("Quality certificate", d.at("certificate"));
  return text + sections_text(d.at("sections"));
}

}  // namespace spear
