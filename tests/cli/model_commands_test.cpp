// The commands that run models, on tiny random ones: what they print, refuse, and do again.
#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "spear/base/atomic_file.h"
#include "spear/base/json.h"
#include "spear/cli/open_model.h"
#include "spear/quantize/quantize_model.h"

#include "cli/program_runner.h"

namespace spear {
namespace {

namespace fs = std::filesystem;
using test::ProgramResult;
using test::ProgramRunner;

// One folder of tiny models for all tests of the process.
const test::TemporaryDirectory* tiny_models() {
  static const test::TemporaryDirectory folder;
  static const bool made = test::run_shell("python3 '" SPEAR_SOURCE_DIR
                                           "/tools/make_tiny_model.py' --families smollm2 '" +
                                           (folder / "models").string() + "'")
                               .status == 0;
  return made ? &folder : nullptr;
}

// The tiny model rounded to nearest, as a .spear file.
void make_artifact(const fs::path& from, const fs::path& to) {
  ThreadPool pool(2);
  SilentProgress progress;
  const OpenedModel model = open_model(from.string(), {}, DType::kF32, pool, progress);
  QuantizeOptions options;
  options.method = QuantizeMethod::kRtn;
  options.rotate = false;
  ModelTexts texts;
  texts.tokenizer = model.tokenizer->serialize();
  texts.chat_template = model.chat_template;
  texts.license = "MIT";
  texts.provenance = R"({"command": "spear compress", "seed": 1})";
  save_model(to, quantize_model(*model.dense, nullptr, options, pool, progress), texts);
}

class ModelCommands : public testing::Test {
 protected:
  void SetUp() override {
    if (tiny_models() == nullptr)
      GTEST_SKIP() << "python3, which writes the models, is not installed";
    model_ = (*tiny_models() / "models/smollm2.gguf").string();
  }
  [[nodiscard]] std::string artifact() const {
    const fs::path path = program_.folder() / "tiny.spear";
    if (!fs::exists(path)) make_artifact(model_, path);
    return path.string();
  }
  [[nodiscard]] Json json(std::vector<std::string> arguments) const {
    arguments.emplace_back("--json");
    const ProgramResult result = program_.run(arguments);
    EXPECT_EQ(result.status, 0) << result.err;
    return value_or_throw(parse_json(result.out, arguments[0]));
  }
  void expect_refused(const std::vector<std::string>& arguments, ErrorCode code,
                      const std::string& words, const std::string& input = {}) const {
    const ProgramResult result = program_.run(arguments, input);
    EXPECT_EQ(result.status, static_cast<int>(code)) << result.err;
    EXPECT_NE(result.err.find(words), std::string::npos) << result.err;
  }

  ProgramRunner program_;
  std::string model_;
};

TEST_F(ModelCommands, BenchMeasuresEveryCaseAndWhatCompensatorsCost) {
  const std::string file = (program_.folder() / "bench.jsonl").string();
  const std::vector<std::string> sweep = {"bench",
                                          artifact(),
                                          "--prefill",
                                          "8,16",
                                          "--context",
                                          "4",
                                          "--tokens",
                                          "3",
                                          "--batch",
                                          "2",
                                          "--batch-context",
                                          "4",
                                          "--batch-tokens",
                                          "2",
                                          "--repeats",
                                          "2",
                                          "--no-ec",
                                          "-o",
                                          file};
  for (const std::string kv : {"f16", "int8"}) {
    std::vector<std::string> arguments = sweep;
    arguments.insert(arguments.end(), {"--kv", kv});
    const ProgramResult result = program_.run(arguments);
    ASSERT_EQ(result.status, 0) << result.err;
    for (const char* words : {"prefill 8 ", "prefill 16, no compensators", "decode 3 after 4",
                              "decode 2 after 4 × 2 streams", "compensators cost", "GB/s"})
      EXPECT_NE(result.out.find(words), std::string::npos) << words << "\n" << result.out;
  }
  const ProgramResult compared = program_.run({"bench", "--compare", file, file});
  EXPECT_EQ(compared.status, 0) << compared.err;
  EXPECT_NE(compared.out.find("1.000"), std::string::npos) << compared.out;
}

TEST_F(ModelCommands, BenchRefusesWhatCannotBeMeasured) {
  expect_refused({"bench"}, ErrorCode::kUsage, "MODEL is required");
  expect_refused({"bench", artifact(), "--prefill", "100000"}, ErrorCode::kUsage,
                 "the model's context is");
  expect_refused({"bench", artifact(), "--prefill", "0", "--tokens", "0", "--batch-tokens", "0"},
                 ErrorCode::kUsage, "nothing to measure");
  expect_refused({"bench", model_, "--no-ec"}, ErrorCode::kUsage, "--no-ec needs a .spear file");
  expect_refused({"bench", "--compare", artifact(), artifact()}, ErrorCode::kBadFile, "line 1");
  expect_refused({"bench", artifact(), "--compare", "a", "b"}, ErrorCode::kUsage, "no model");
}

TEST_F(ModelCommands, ChatAnswersTheSameForTheSameSeed) {
  const auto text = [this](const std::string& seed) {
    return json({"chat", model_, "-p", "hello", "--max-tokens", "12", "--seed", seed,
                 "--temperature", "1"})
        .at("text")
        .get<std::string>();
  };
  EXPECT_EQ(text("7"), text("7"));
  EXPECT_NE(text("7"), text("8"));
}

TEST_F(ModelCommands, ChatCountsAndStops) {
  const Json answer = json({"chat", model_, "-p", "hello", "--max-tokens", "3", "--greedy"});
  EXPECT_LE(answer.at("tokens"), 3);
  EXPECT_GT(answer.at("prompt_tokens"), 0);
  EXPECT_TRUE(answer.at("stop") == "max_tokens" || answer.at("stop") == "end");
}

TEST_F(ModelCommands, ChatTakesAPipeAsOneMessage) {
  const std::vector<std::string> options = {"--greedy", "--max-tokens", "5", "-q"};
  std::vector<std::string> piped = {"chat", model_};
  std::vector<std::string> typed = {"chat", model_, "-p", "two\nlines"};
  piped.insert(piped.end(), options.begin(), options.end());
  typed.insert(typed.end(), options.begin(), options.end());
  const ProgramResult result = program_.run(piped, "two\nlines\n");
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(result.out, program_.run(typed).out);
  expect_refused({"chat", model_}, ErrorCode::kUsage, "standard input is empty", "\n");
}

TEST_F(ModelCommands, ChatUnderstandsCommandsAndTextOfSeveralLines) {
  const std::vector<std::string> arguments = {"chat",         model_, "--lines", "--greedy",
                                              "--max-tokens", "4",    "-q"};
  const auto out = [&](const std::string& input) {
    const ProgramResult result = program_.run(arguments, input);
    EXPECT_EQ(result.status, 0) << result.err;
    return result.out;
  };
  const std::string first = out("one\n");
  EXPECT_EQ(out("one\n/reset\none\n"), first + first);
  EXPECT_NE(out("one\none\n"), first + first) << "the second answer knows of the first";
  EXPECT_EQ(out("\"\"\"a\nb\"\"\"\n"), out("a\\\nb\n"));
  EXPECT_NE(out("/system be brief\none\n"), first);
  EXPECT_NE(out("/nonsense\n").find("no such command"), std::string::npos);
  EXPECT_EQ(out("/exit\none\n"), "");
  EXPECT_NE(out("/help\n").find("/stats"), std::string::npos);
  const std::string stats = out("one\n/stats\n");
  EXPECT_NE(stats.find("answers: 4 tokens in"), std::string::npos) << stats;
}

TEST_F(ModelCommands, ChatRunsAnArtifact) {
  EXPECT_GT(json({"chat", artifact(), "-p", "hello", "--max-tokens", "3"}).at("prompt_tokens"), 0);
}

TEST_F(ModelCommands, ChatRefusesOptionsThatMakeNoSense) {
  expect_refused({"chat", model_, "-p", "x", "--top-p", "0"}, ErrorCode::kUsage, "top-p");
  expect_refused({"chat", model_, "-p", "x", "--temperature", "-1"}, ErrorCode::kUsage,
                 "temperature");
  expect_refused({"chat", model_, "-p", "x", "--context", "3"}, ErrorCode::kUsage, "--context");
  expect_refused({"chat", model_, "-p", "x", "--device", "abacus"}, ErrorCode::kUsage, "--device");
  expect_refused({"chat", model_, "--json", "--lines"}, ErrorCode::kUsage, "--json", "x\n");
  expect_refused({"chat", "no-such-model", "-p", "x"}, ErrorCode::kNotFound, "spear pull");
  expect_refused({"chat", model_, "-p", "x", "--presence-penalty", "3"}, ErrorCode::kUsage,
                 "--presence-penalty: -2 to 2 expected, found 3");
  expect_refused({"chat", model_, "-p", "x", "--stop", ""}, ErrorCode::kUsage, "--stop");
  expect_refused({"chat", model_, "-p", "x", "--draft", "100"}, ErrorCode::kUsage, "0 to 64");
  expect_refused({"chat", model_, "-p", "x", "--regex", "(a"}, ErrorCode::kUsage, "regex, byte 2");
  expect_refused({"chat", model_, "-p", "x", "--no-ec"}, ErrorCode::kUsage, "no compensators");
  const std::string schema =
      program_.folder().file("schema.json", R"({"type": "string", "format": "email"})").string();
  expect_refused({"chat", model_, "-p", "x", "--json-schema", schema}, ErrorCode::kUsage, "email");
  expect_refused({"chat", model_, "-p", std::string(5000, 'x')}, ErrorCode::kUsage,
                 "the context has room");
}

TEST_F(ModelCommands, ChatSaysBeforeLoadingThatAModelDoesNotFit) {
  const fs::path path = program_.folder().file("huge.spear", "\x89SPEAR\r\n");
  std::error_code error;
  fs::resize_file(path, uintmax_t{1} << 42, error);  // sparse
  if (error) GTEST_SKIP() << "no file of four terabytes can be made here: " << error.message();
  expect_refused({"chat", path.string(), "-p", "x"}, ErrorCode::kUnsupported, "of memory");
}

TEST_F(ModelCommands, ChatAnswersObeyAConstraint) {
  const auto text = [this](std::vector<std::string> options) {
    std::vector<std::string> arguments = {"chat", model_, "-p", "hello", "--temperature", "1"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    return json(arguments).at("text").get<std::string>();
  };
  const std::string choice = text({"--regex", "(yes|no|[0-9]{3})"});
  EXPECT_TRUE(choice == "yes" || choice == "no" || choice.size() == 3U) << choice;
  const std::string schema =
      program_.folder()
          .file("schema.json", R"({"properties": {"n": {"enum": [1, 22]}}, "required": ["n"]})")
          .string();
  const int n = value_or_throw(parse_json(text({"--json-schema", schema}), "answer")).at("n");
  EXPECT_TRUE(n == 1 || n == 22);
}

TEST_F(ModelCommands, ChatGuessingAndCacheTypesKeepTheGreedyAnswer) {
  const auto text = [this](std::vector<std::string> options) {
    std::vector<std::string> arguments = {"chat",         model_, "-p",        "hello", "--greedy",
                                          "--max-tokens", "24",   "--compute", "f32"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    return json(arguments).at("text").get<std::string>();
  };
  const std::string plain = text({});
  EXPECT_EQ(text({"--draft", "4"}), plain);
  EXPECT_EQ(text({"--deterministic"}), plain);
  EXPECT_FALSE(text({"--kv", "int8"}).empty());
}

TEST_F(ModelCommands, EveryCommandRefusesAnUnknownModelAlike) {
  for (const std::string command : {"chat", "inspect", "diagnose", "eval"}) {
    std::vector<std::string> arguments = {command, "no-such-model"};
    if (command == "eval") arguments = {"eval", "-r", "no-such-model"};
    if (command == "chat") arguments.insert(arguments.end(), {"-p", "x"});
    expect_refused(arguments, ErrorCode::kNotFound, "pulled models: none");
  }
}

TEST_F(ModelCommands, InspectDescribesCheckpointsAndArtifacts) {
  const Json gguf = json({"inspect", model_});
  EXPECT_EQ(gguf.at("format"), "gguf");
  EXPECT_EQ(gguf.at("sha256").get<std::string>().size(), 64U);
  const Json spear = json({"inspect", artifact(), "--verify"});
  EXPECT_EQ(spear.at("format"), "spear");
  EXPECT_EQ(spear.at("verified"), true);
  EXPECT_EQ(spear.at("provenance").at("seed"), 1);
  EXPECT_TRUE(spear.at("certificate").is_null());
  EXPECT_EQ(spear.at("bytes").at("file"), fs::file_size(artifact()));
  EXPECT_GT(spear.at("bytes").at("bits_per_weight"), 4.0);
  // Rounded per channel with a tied 8-bit embedding: the plain W4 file but for norms kept in F32.
  EXPECT_EQ(2 * spear.at("bytes").at("extra").get<int64_t>() +
                4 * gguf.at("config").at("hidden_size").get<int64_t>(),
            spear.at("bytes").at("norms").get<int64_t>());
  const std::string text = program_.run({"inspect", artifact()}).out;
  EXPECT_NE(text.find("4 bits, per channel, 4-bit zeros"), std::string::npos) << text;
}

TEST_F(ModelCommands, InspectVerifyFindsAChangedByte) {
  const std::string path = artifact();
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(-100, std::ios::end);
  const char old = static_cast<char>(file.get());
  file.seekp(-100, std::ios::end);
  file.put(static_cast<char>(old ^ 1));
  file.close();
  expect_refused({"inspect", path, "--verify"}, ErrorCode::kBadFile, "checksum");
  expect_refused({"inspect", model_, "--verify"}, ErrorCode::kUsage, ".spear");
}

TEST_F(ModelCommands, DiagnoseMeasuresChoosesAndCompares) {
  const std::string a = (program_.folder() / "a.json").string();
  const std::string b = (program_.folder() / "b.json").string();
  const std::vector<std::string> sizes = {"--sequences", "4", "--length", "24"};
  std::vector<std::string> first = {"diagnose", model_, "-o", a};
  first.insert(first.end(), sizes.begin(), sizes.end());
  const Json damage = json(first);
  EXPECT_EQ(damage.at("modules").size(), 14U);
  EXPECT_FALSE(damage.at("placement").at("chosen").empty());
  EXPECT_EQ(value_or_throw(parse_json(read_text_file(a).value(), a)), damage);
  EXPECT_EQ(json(first), damage) << "the second run finds everything measured";
  std::vector<std::string> second = {"diagnose", model_, "-o", b, "--bits", "3"};
  second.insert(second.end(), sizes.begin(), sizes.end());
  EXPECT_EQ(json(second).at("quantizer"), "rtn, 3 bits, per channel");
  const Json overlap = json({"diagnose", "--compare", a, b});
  EXPECT_GT(overlap.at("cka").at("spearman"), 0.3);
  EXPECT_EQ(json({"diagnose", "--compare", a, a}).at("kl").at("jaccard"), 1.0);
}

TEST_F(ModelCommands, DiagnoseChangesItsChoiceWithTheCosts) {
  const fs::path costs =
      program_.folder().file("costs.json", R"({"device": "a test", "read_gb_s": 25,
      "call_overhead_us": {"q": 9000, "k": 9000, "v": 9000, "o": 9000,
                           "gate": 0.1, "up": 0.1, "down": 0.1}})");
  std::vector<std::string> arguments = {"diagnose", model_, "--sequences",      "4",
                                        "--length", "24",   "--latency-weight", "5"};
  const Json plain = json(arguments).at("placement");
  arguments.insert(arguments.end(), {"--costs", costs.string()});
  const Json dear = json(arguments).at("placement");
  EXPECT_EQ(dear.at("cost_table"), "a test");
  EXPECT_NE(plain.at("chosen"), dear.at("chosen"));
}

TEST_F(ModelCommands, DiagnoseRefusesBadInput) {
  expect_refused({"diagnose"}, ErrorCode::kUsage, "a MODEL");
  expect_refused({"diagnose", artifact()}, ErrorCode::kUsage, "full-precision");
  expect_refused({"diagnose", model_, "--length", "100000"}, ErrorCode::kUsage, "--length");
  expect_refused({"diagnose", "--compare", model_, model_}, ErrorCode::kBadFile, "JSON");
}

TEST_F(ModelCommands, EvalMeasuresAnArtifactOnAFile) {
  std::string text;
  for (int i = 0; i < 400; ++i) text += "The cat sat on the mat number " + std::to_string(i) + ". ";
  const std::string file = program_.folder().file("cat.txt", text).string();
  const std::string output = (program_.folder() / "eval.json").string();
  const Json result =
      json({"eval", artifact(), "-r", model_, "--text", file + "@64:4", "-o", output});
  const Json& measured = result.at("models").at(0).at("texts").at("cat@64");
  EXPECT_GT(measured.at("kl_mean"), 0.0);
  EXPECT_GT(measured.at("top1_agreement"), 0.5);
  EXPECT_EQ(value_or_throw(parse_json(read_text_file(output).value(), output)), result);
  const ProgramResult table =
      program_.run({"eval", artifact(), "-r", model_, "--text", file + "@64:4"});
  EXPECT_NE(table.out.find("cat@64"), std::string::npos) << table.out;
}

TEST_F(ModelCommands, CompressWritesACertifiedFileThatReportShows) {
  const std::string output = (program_.folder() / "made.spear").string();
  const std::vector<std::string> arguments = {"compress",  model_,          "-o",        output,
                                              "--budget",  "25%",           "--samples", "6",
                                              "--no-text", "--certificate", "none"};
  const Json made = json(arguments);
  EXPECT_EQ(made.at("path"), output);
  EXPECT_GT(made.at("compensated_modules"), 0);
  EXPECT_LE(made.at("extra_share"), 0.25);
  const std::string bytes = read_text_file(output).value();
  EXPECT_EQ(json(arguments).at("bytes"), made.at("bytes"));
  EXPECT_EQ(read_text_file(output).value(), bytes) << "the same command ends with the same bytes";

  std::string text;
  for (int i = 0; i < 400; ++i) text += "The cat sat on the mat number " + std::to_string(i) + ". ";
  const std::string file = program_.folder().file("cat.txt", text).string();
  const std::string measured = (program_.folder() / "eval.json").string();
  expect_refused({"report", output}, ErrorCode::kUsage, "spear eval");
  EXPECT_EQ(json({"eval", output, "-r", model_, "--text", file + "@64:4", "-o", measured})
                .at("models")
                .size(),
            1U);
  const std::string page = (program_.folder() / "report.html").string();
  const Json report = json({"report", output, measured, "-r", model_, "-o", page, "--prompt",
                            "hello", "--sample-tokens", "4"});
  EXPECT_EQ(report.at("html"), page);
  const std::string html = read_text_file(page).value();
  EXPECT_NE(html.find("plain W4"), std::string::npos) << "the samples of text";
  EXPECT_NE(html.find("cat@64"), std::string::npos);
}

TEST_F(ModelCommands, CompressRefusesBadInput) {
  expect_refused({"compress", model_, "-o", "/nowhere/x.spear"}, ErrorCode::kNotFound, "/nowhere");
  expect_refused({"compress", model_, "-o", model_}, ErrorCode::kUsage, "the model itself");
  expect_refused({"compress", artifact()}, ErrorCode::kUsage, "compressed already");
  expect_refused({"compress", model_, "--budget", "much"}, ErrorCode::kUsage, "--budget");
  expect_refused({"compress", model_, "--recipe", "magic"}, ErrorCode::kUsage, "--recipe");
  const std::string out = (program_.folder() / "x.spear").string();
  const std::string empty = program_.folder().file("empty.txt", "").string();
  const std::string word = program_.folder().file("word.txt", "one").string();
  expect_refused({"compress", model_, "-o", out, "--budget", "0.0001%", "--no-text"},
                 ErrorCode::kBudget, "--budget");
  expect_refused({"compress", model_, "-o", out, "--text", word}, ErrorCode::kUsage, "word.txt");
  EXPECT_NE(program_.run({"compress", model_, "-o", out, "--text", empty}).status, 0);
  EXPECT_FALSE(fs::exists(out));
}

TEST_F(ModelCommands, EvalRefusesBadInput) {
  const std::string empty = program_.folder().file("empty.txt", "").string();
  expect_refused({"eval", artifact()}, ErrorCode::kUsage, "--reference");
  expect_refused({"eval", "-r", artifact()}, ErrorCode::kUsage, "full-precision");
  expect_refused({"eval", model_, "-r", model_, "--text", empty}, ErrorCode::kUsage, ".spear");
  expect_refused({"eval", "-r", model_, "--text", empty}, ErrorCode::kBadFile, "empty");
  expect_refused({"eval", "-r", model_, "--text", "/nowhere.txt"}, ErrorCode::kNotFound,
                 "/nowhere.txt");
  expect_refused({"eval", "-r", model_, "--text", empty + "@x"}, ErrorCode::kUsage, "@");
}

}  // namespace
}  // namespace spear
