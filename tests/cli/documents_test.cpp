#include <string>

#include <gtest/gtest.h>

#include "spear/base/atomic_file.h"
#include "spear/cli/app_description.h"
#include "spear/cli/commands.h"
#include "spear/cli/exit_codes.h"
#include "spear/cli/help_text.h"
#include "spear/cli/man_page.h"

#include "cli/program_runner.h"

namespace spear {
namespace {

using test::ProgramResult;
using test::ProgramRunner;
using test::run_shell;

class Documents : public testing::Test {
 protected:
  std::string write(const std::string& name, const std::vector<std::string>& arguments) {
    const ProgramResult result = program_.run(arguments);
    EXPECT_EQ(result.status, 0) << result.err;
    return program_.folder().file(name, result.out).string();
  }
  void expect_no_complaint(const std::string& shell, const std::string& file) {
    if (!test::program_exists(shell)) GTEST_SKIP() << shell << " is not installed";
    const ProgramResult result = run_shell(shell + " -n '" + file + "'");
    EXPECT_EQ(result.status, 0) << result.err;
    EXPECT_TRUE(result.err.empty()) << result.err;
  }
  ProgramRunner program_;
};

TEST_F(Documents, BashTakesItsCompletions) {
  expect_no_complaint("bash", write("spear.bash", {"completion", "bash"}));
}
TEST_F(Documents, ZshTakesItsCompletions) {
  expect_no_complaint("zsh", write("_spear", {"completion", "zsh"}));
}
TEST_F(Documents, FishTakesItsCompletions) {
  expect_no_complaint("fish", write("spear.fish", {"completion", "fish"}));
}

// Asks bash what it would complete, as pressing Tab does.
TEST_F(Documents, BashCompletesCommandsOptionsAndChoices) {
  if (!test::program_exists("bash")) GTEST_SKIP() << "bash is not installed";
  const std::string script = write("spear.bash", {"completion", "bash"});
  const auto completed = [&script](const std::string& words, int at) {
    return run_shell("bash -c 'source \"" + script + "\"; COMP_WORDS=(" + words +
                     "); COMP_CWORD=" + std::to_string(at) + "; _spear; echo \"${COMPREPLY[*]}\"'")
        .out;
  };
  EXPECT_EQ(completed("spear pul", 1), "pull\n");
  EXPECT_EQ(completed("spear completion f", 2), "fish\n");
  EXPECT_EQ(completed("spear pull --for", 2), "--force\n");
  EXPECT_EQ(completed("spear --js", 1), "--json\n");
  EXPECT_EQ(completed("spear --threads 2 li", 3), "list\n");
}

TEST_F(Documents, TheManualPageHasNoErrors) {
  if (!test::program_exists("mandoc")) GTEST_SKIP() << "mandoc is not installed";
  const ProgramResult result =
      run_shell("mandoc -T lint -W error '" + write("spear.1", {"man"}) + "'");
  EXPECT_EQ(result.status, 0) << result.out << result.err;
}

TEST_F(Documents, TheManualPageIsRendered) {
  if (!test::program_exists("man")) GTEST_SKIP() << "man is not installed";
  const ProgramResult result =
      run_shell("MANWIDTH=100 man --warnings -l '" + write("spear.1", {"man"}) + "'");
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_TRUE(result.err.empty()) << result.err;
  EXPECT_NE(result.out.find("spear pull [options] NAME"), std::string::npos) << result.out;
}

TEST(ManPage, HasEveryCommandOptionAndExitCode) {
  Application application;
  const AppDescription app = describe(application);
  const std::string page = man_page(app, "spear 1");
  for (const CommandDescription& command : app.commands) {
    std::string heading = ".SS ";  // a plain hyphen would be set as one of the text's
    for (const char c : command.name) heading += c == '-' ? std::string("\\-") : std::string(1, c);
    EXPECT_NE(page.find(heading), std::string::npos) << heading;
    for (const OptionDescription& option : command.options) EXPECT_FALSE(option.help.empty());
  }
  for (const ExitCode& code : exit_codes())
    EXPECT_NE(page.find("\\fB" + std::to_string(code.code) + "\\fR ("), std::string::npos);
}

TEST(AppDescription, KnowsChoicesDefaultsAndRepetition) {
  Application application;
  const AppDescription app = describe(application);
  bool saw_completion = false;
  bool saw_rm = false;
  for (const CommandDescription& command : app.commands) {
    EXPECT_NE(command.name, "man");
    if (command.name == "completion") {
      saw_completion = true;
      EXPECT_EQ(command.positionals[0].choices, (std::vector<std::string>{"bash", "zsh", "fish"}));
      EXPECT_TRUE(command.positionals[0].required);
    }
    if (command.name == "rm") {
      saw_rm = true;
      EXPECT_TRUE(command.positionals[0].repeats);
    }
  }
  EXPECT_TRUE(saw_completion && saw_rm);
}

TEST(Wrapped, NeverExceedsTheWidth) {
  const std::string text = wrapped("one two three four five six", 12, 2);
  EXPECT_EQ(text, "one two\n  three four\n  five six");
  EXPECT_EQ(wrapped("averyveryverylongword", 5, 0), "averyveryverylongword");
  EXPECT_EQ(wrapped("", 5, 0), "");
}

}  // namespace
}  // namespace spear
