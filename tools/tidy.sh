#!/usr/bin/env bash
# Runs clang-tidy 16 over the sources of a configured build: 14, Debian's default, cannot parse the C++20 we use.
# usage: tools/tidy.sh [BUILD_DIR] [PATH_REGEX]      default: build/dev, everything below src/spear
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/dev}
[ -f "$build/compile_commands.json" ] || { echo "tidy: configure first: cmake --preset dev" >&2; exit 1; }
command -v clang-tidy-16 > /dev/null || { echo "tidy: apt-get install clang-tidy-16" >&2; exit 1; }
exec run-clang-tidy-16 -clang-tidy-binary clang-tidy-16 -p "$build" -quiet -j "$(nproc)" \
  -extra-arg=-Wno-unknown-warning-option "${2:-src/spear/.*\.cpp}"
