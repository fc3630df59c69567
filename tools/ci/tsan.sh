#!/usr/bin/env bash
# The thread pool, everything else of base, the scheduler, the engine's and the server's threads under the thread sanitizer.
# The decoder's products come from libraries that the sanitizer cannot see into, so its tests stay out.
set -euo pipefail
cd "$(dirname "$0")/../.."
cmake --preset tsan -DSPEAR_WERROR=OFF > /dev/null
cmake --build --preset tsan --target base_test scheduler_test engine_test serve_http_test
build/tsan/tests/base/base_test --gtest_brief=1
build/tsan/tests/scheduler/scheduler_test --gtest_brief=1
build/tsan/tests/engine/engine_test --gtest_brief=1 --gtest_filter=-DecoderModelTest.*
build/tsan/tests/serve/serve_http_test --gtest_brief=1
