// spear_load idle|drive --OPTION VALUE …; README.md says what each mode measures.
#include <cstdio>
#include <exception>
#include <map>
#include <stdexcept>
#include <string>

#include "sockets.h"

namespace {

spear::load::LoadOptions parsed(int argc, char** argv) {
  std::map<std::string, double> given;
  for (int i = 2; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--send-objectives") {
      given[name] = 1;
    } else if (i + 1 < argc) {
      given[name] = std::stod(argv[++i]);
    } else {
      throw std::invalid_argument(name + ": a value is missing");
    }
  }
  spear::load::LoadOptions o;
  const auto take = [&](const char* name, auto& value) {
    if (const auto found = given.find(name); found != given.end()) {
      value = static_cast<std::remove_reference_t<decltype(value)>>(found->second);
      given.erase(found);
    }
  };
  take("--port", o.port);
  take("--seconds", o.seconds);
  take("--connections", o.connections);
  take("--slow", o.slow);
  take("--pid", o.pid);
  take("--rate", o.rate);
  take("--max-tokens", o.max_tokens);
  take("--prompt-words", o.prompt_words);
  take("--seed", o.seed);
  take("--ttft-ms", o.ttft_ms);
  take("--itl-ms", o.itl_ms);
  take("--send-objectives", o.send_objectives);
  if (!given.empty()) throw std::invalid_argument(given.begin()->first + ": no such option");
  return o;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode != "idle" && mode != "drive") {
    std::fputs("usage: spear_load idle|drive [--OPTION VALUE ...]; bench/load/README.md\n", stderr);
    return 2;
  }
  try {
    const spear::load::LoadOptions options = parsed(argc, argv);
    spear::load::raise_file_limit();
    return mode == "idle" ? spear::load::run_idle(options) : spear::load::run_drive(options);
  } catch (const std::exception& trouble) {
    std::fprintf(stderr, "spear_load: %s\n", trouble.what());
    return 1;
  }
}
