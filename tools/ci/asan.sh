#!/usr/bin/env bash
# The unit tests and the fuzz corpora under the address and undefined-behaviour sanitizers.
set -euo pipefail
cd "$(dirname "$0")/../.."
cmake --preset asan
cmake --build --preset asan
ctest --preset asan --quiet --output-on-failure
