// The whole program but for main(): parse, set up, run one command, turn a Failure into a sentence
// and an exit code.
#pragma once

namespace spear {

int run_program(int argc, const char* const* argv);

}  // namespace spear
