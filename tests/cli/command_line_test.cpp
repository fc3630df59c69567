#include <string>

#include <gtest/gtest.h>

#include "spear/base/json.h"
#include "spear/cli/commands.h"

#include "cli/program_runner.h"

namespace spear {
namespace {

using test::ProgramResult;
using test::ProgramRunner;

size_t lines_in(const std::string& text) {
  size_t lines = 0;
  for (const char c : text) lines += c == '\n' ? 1 : 0;
  return lines;
}

TEST(CommandLine, PrintsVersionAndHelp) {
  const ProgramRunner program;
  const ProgramResult version = program.run({"--version"});
  EXPECT_EQ(version.status, 0);
  EXPECT_TRUE(version.out.starts_with("spear ")) << version.out;
  const ProgramResult help = program.run({"--help"});
  EXPECT_EQ(help.status, 0);
  for (const Command& command : all_commands())
    EXPECT_EQ(help.out.find("\n  " + command.name + " ") != std::string::npos, !command.hidden)
        << command.name;
}

TEST(CommandLine, ShowsTwoExamplesOfEveryCommand) {
  const ProgramRunner program;
  for (const Command& command : all_commands()) {
    if (command.hidden) continue;
    EXPECT_GE(command.examples.size(), 2U) << command.name;
    const ProgramResult help = program.run({command.name, "--help"});
    EXPECT_EQ(help.status, 0);
    for (const CommandExample& example : command.examples) {
      EXPECT_NE(help.out.find("  " + example.line + "\n"), std::string::npos) << help.out;
      EXPECT_NE(example.line.find("spear " + command.name), std::string::npos) << example.line;
    }
  }
}

TEST(CommandLine, RefusesWrongUseInOneSentence) {
  const ProgramRunner program;
  const std::vector<std::vector<std::string>> wrong = {{"pul"},
                                                       {"pull"},
                                                       {"list", "--nope"},
                                                       {"--threads", "x", "list"},
                                                       {"list", "extra"},
                                                       {"--threads"},
                                                       {"list", "--threads", "-1"},
                                                       {"completion", "tcsh"},
                                                       {"--nope"},
                                                       {"--seed", "-1e", "list"}};
  for (const auto& arguments : wrong) {
    const ProgramResult result = program.run(arguments);
    EXPECT_EQ(result.status, 2) << arguments[0] << result.err;
    EXPECT_TRUE(result.err.starts_with("spear: error: ")) << result.err;
    EXPECT_EQ(lines_in(result.err), 1U) << result.err;
    EXPECT_TRUE(result.out.empty()) << result.out;
  }
}

TEST(CommandLine, WithoutACommandPrintsHelpAsAnError) {
  const ProgramResult result = ProgramRunner().run({});
  EXPECT_EQ(result.status, 2);
  EXPECT_NE(result.err.find("Commands:"), std::string::npos);
}

TEST(CommandLine, SaysWhichCommandWasMeant) {
  const ProgramRunner program;
  EXPECT_NE(program.run({"lst"}).err.find("did you mean \"list\"?"), std::string::npos);
  EXPECT_EQ(program.run({"zzzzzz"}).err.find("did you mean"), std::string::npos);
}

TEST(CommandLine, TakesGlobalOptionsBeforeAndAfterTheCommand) {
  const ProgramRunner program;
  for (const auto& arguments :
       {std::vector<std::string>{"--json", "list"}, std::vector<std::string>{"list", "--json"}}) {
    const ProgramResult result = program.run(arguments);
    EXPECT_EQ(result.status, 0) << result.err;
    EXPECT_TRUE(parse_json(result.out, "list").value().at("models").empty());
  }
}

TEST(CommandLine, WritesErrorsAsJsonWhereAsked) {
  const ProgramRunner program;
  const ProgramResult unknown = program.run({"rm", "nothing", "--json"});
  EXPECT_EQ(unknown.status, 3);
  EXPECT_TRUE(unknown.out.empty());
  const Json error = parse_json(unknown.err, "stderr").value().at("error");
  EXPECT_EQ(error.at("code"), 3);
  EXPECT_EQ(error.at("name"), "not_found");
  EXPECT_NE(error.at("message").get<std::string>().find("nothing"), std::string::npos);
  const ProgramResult usage = program.run({"--json", "--nope"});
  EXPECT_EQ(usage.status, 2);
  EXPECT_EQ(parse_json(usage.err, "stderr").value().at("error").at("name"), "usage");
}

TEST(CommandLine, SaysThatOutputCannotBeWritten) {
  const ProgramResult result =
      test::run_shell("env SPEAR_CACHE=/nonexistent '" SPEAR_PROGRAM "' list > /dev/full");
  EXPECT_EQ(result.status, 6) << result.err;
  EXPECT_NE(result.err.find("standard output"), std::string::npos);
}

TEST(CommandLine, DoesNotMindAReaderWhoLeaves) {
  const ProgramResult result =
      test::run_shell("'" SPEAR_PROGRAM "' man | head -1 > /dev/null; exit ${PIPESTATUS:-0}");
  EXPECT_TRUE(result.err.empty()) << result.err;
}

TEST(CommandLine, WritesNoColorsToAFile) {
  const ProgramRunner program;
  const ProgramResult result = program.run({"rm", "nothing"});
  EXPECT_EQ(result.err.find('\033'), std::string::npos);
}

TEST(Pull, SaysWhichNamesThereAre) {
  const ProgramResult result = ProgramRunner().run({"pull", "smolm"});
  EXPECT_EQ(result.status, 2);
  EXPECT_NE(result.err.find("smollm2-135m"), std::string::npos);
}

TEST(Pull, SaysThatPythonIsMissing) {
  const ProgramResult result =
      ProgramRunner().run({"pull", "smollm2-135m"}, "", {"SPEAR_PYTHON=/nowhere/python3"});
  EXPECT_EQ(result.status, 3);
  EXPECT_NE(result.err.find("SPEAR_PYTHON"), std::string::npos) << result.err;
}

TEST(Pull, SaysThatTheHubCannotBeReached) {
  const ProgramResult result = ProgramRunner().run(
      {"pull", "acme/tiny"}, "", {"HF_ENDPOINT=file:///etc", "no_proxy=127.0.0.1"});
  EXPECT_EQ(result.status, 2);
  EXPECT_NE(result.err.find("HF_ENDPOINT"), std::string::npos) << result.err;
}

TEST(ListAndRm, ShowAndRemoveAModel) {
  const ProgramRunner program;
  program.folder().file("cache/models/tiny/m.gguf", "12345");
  program.folder().file(
      "cache/models/tiny/spear-model.json",
      R"({"name":"tiny","source":"a test","revision":"1","licence":"MIT","entry":"m.gguf",
                            "files":[{"name":"m.gguf","bytes":5,"sha256":"0"}]})");
  EXPECT_EQ(program.run({"list", "--names"}).out, "tiny\n");
  const Json models = parse_json(program.run({"list", "--json"}).out, "list").value().at("models");
  EXPECT_EQ(models.at(0).at("bytes"), 5);
  EXPECT_NE(program.run({"list"}).out.find("a test (1)"), std::string::npos);
  EXPECT_EQ(program.run({"rm", "tiny"}).status, 0);
  EXPECT_EQ(program.run({"list", "--names"}).out, "");
}

}  // namespace
}  // namespace spear
