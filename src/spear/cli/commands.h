// Every command, each made by its own file.
#pragma once

#include <vector>

#include "spear/cli/command.h"

namespace spear {

std::vector<Command> all_commands();  // in the order of the help

Command pull_command();
Command list_command();
Command rm_command();
Command compress_command();
Command diagnose_command();
Command eval_command();
Command report_command();
Command inspect_command();
Command chat_command();
Command bench_command();
Command serve_command();
Command export_tokenizer_command();
Command completion_command();
Command man_command();

}  // namespace spear
