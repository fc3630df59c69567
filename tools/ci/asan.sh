#!/usr/bin/env bash
# What reads bytes from outside, and the fuzz corpora, under the address and undefined-behaviour sanitizers.
set -euo pipefail
cd "$(dirname "$0")/../.."
cmake --preset asan -DSPEAR_WERROR=OFF > /dev/null
fuzzers=$(sed -n 's/^ *spear_fuzzer(NAME \([a-z_]*\).*/fuzz_\1/p' fuzz/CMakeLists.txt)
# shellcheck disable=SC2086  # one word a target
cmake --build --preset asan --target base_test support_test formats_test tokenizer_test checkpoint_test scheduler_test engine_test serve_test serve_http_test $fuzzers
# The other folders are not built here; their tests run in the release build.
ctest --preset asan --exclude-regex 'NOT_BUILT|^e2e|^tools' --quiet --output-on-failure
