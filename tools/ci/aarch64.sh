#!/usr/bin/env bash
# The plain path compiles for another processor: every library up to the decoder, with Debian's cross compiler.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ -d deps/include ] || tools/bundle_deps deps
cmake -S . -B build/aarch64 -G Ninja -DCMAKE_TOOLCHAIN_FILE="$PWD/cmake/aarch64.cmake" -DCMAKE_BUILD_TYPE=None \
  -DCMAKE_CXX_FLAGS=-O1 -DSPEAR_DEPS_DIR="$PWD/deps" -DSPEAR_HEADERS_ONLY=ON -DSPEAR_BUILD_TESTS=OFF \
  -DSPEAR_BUILD_FUZZERS=OFF -DSPEAR_WERROR=OFF
cmake --build build/aarch64 --target spear_model
