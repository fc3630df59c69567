#include "spear/cli/commands.h"

namespace spear {

std::vector<Command> all_commands() {
  return {pull_command(),       list_command(),  rm_command(),     compress_command(),
          diagnose_command(),   eval_command(),  report_command(), inspect_command(),
          chat_command(),       serve_command(), bench_command(),  export_tokenizer_command(),
          completion_command(), man_command()};
}

}  // namespace spear
