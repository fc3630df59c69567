#include "spear/cli/program.h"

int main(int argc, char** argv) {
  return spear::run_program(argc, argv);
}
