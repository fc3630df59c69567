#!/usr/bin/env bash
# Runs clang-tidy over the sources of a configured build.
# usage: tools/tidy.sh [BUILD_DIR] [PATH_REGEX]      default: build/dev, everything below src/spear
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/dev}
[ -f "$build/compile_commands.json" ] || { echo "tidy: configure first: cmake --preset dev" >&2; exit 1; }
exec run-clang-tidy -p "$build" -quiet -j "$(nproc)" "${2:-src/spear/.*\.cpp}"
