#!/usr/bin/env bash
# The thread pool and everything else of base under the thread sanitizer.
set -euo pipefail
cd "$(dirname "$0")/../.."
cmake --preset tsan -DSPEAR_WERROR=OFF > /dev/null
cmake --build --preset tsan --target base_test
build/tsan/tests/base/base_test --gtest_brief=1
