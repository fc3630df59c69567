#!/usr/bin/env bash
# The thread pool, and what computes on it, under the thread sanitizer.
set -euo pipefail
cd "$(dirname "$0")/../.."
targets=(base_test)
cmake --preset tsan -DSPEAR_BUILD_FUZZERS=OFF > build-tsan.log 2>&1 || { cat build-tsan.log; exit 1; }
rm -f build-tsan.log
cmake --build --preset tsan --target "${targets[@]}"
for target in "${targets[@]}"; do
  "build/tsan/tests/${target%_test}/$target" --gtest_brief=1
done
