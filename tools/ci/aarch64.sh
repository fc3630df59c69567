#!/usr/bin/env bash
# The plain path compiles for aarch64, and its unit tests pass there under an emulator. Packages for aarch64 are
# not installed: headers come from the bundle, GoogleTest is compiled from its source, nothing else is linked.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=build/aarch64
packages=build/aarch64-packages
[ -d deps/include ] || tools/bundle_deps deps

if [ ! -f "$packages/lib/libgtest_main.a" ]; then
  mkdir -p "$packages/lib"
  ln -sfn "$PWD/deps/include" "$packages/include"
  source=/usr/src/googletest/googletest
  for part in gtest-all:gtest gtest_main:gtest_main; do
    aarch64-linux-gnu-g++ -O1 -I"$source" -I"$source/include" -c "$source/src/${part%:*}.cc" -o "$packages/${part#*:}.o"
    aarch64-linux-gnu-ar rcs "$packages/lib/lib${part#*:}.a" "$packages/${part#*:}.o"
  done
fi
cmake -S . -B "$build" -G Ninja -DCMAKE_TOOLCHAIN_FILE="$PWD/cmake/aarch64.cmake" -DCMAKE_BUILD_TYPE=None \
  -DCMAKE_CXX_FLAGS=-O1 -DSPEAR_DEPS_DIR="$packages" -DSPEAR_HEADERS_ONLY=ON -DSPEAR_BUILD_FUZZERS=OFF -DSPEAR_WERROR=OFF
cmake --build "$build" --target spear_model support_test kernels_test
for test in support kernels; do
  qemu-aarch64 -L /usr/aarch64-linux-gnu "$build/tests/$test/${test}_test" --gtest_brief=1
done
