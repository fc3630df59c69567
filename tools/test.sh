#!/usr/bin/env bash
# Installs what is missing, builds, and runs every check and test that a change must pass on this machine.
# usage: tools/test.sh [PRESET]      default: release
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-release}
tools/install_packages.sh build test
tools/format.sh --check
tools/check_layers.py
tools/check_large_files.sh
cmake --preset "$preset" -DSPEAR_BUILD_TESTS=ON
cmake --build --preset "$preset"
[ ! -f "build/$preset/isa_objects.txt" ] || tools/check_isa_objects.sh "build/$preset"
# Real models and published vocabularies; what cannot be fetched is skipped by its tests, which say so.
export SPEAR_TEST_ASSETS=${SPEAR_TEST_ASSETS:-$PWD/build/test-assets}
for part in smollm2 vocab; do
  timeout 600 python3 tools/fetch_test_assets.py "$SPEAR_TEST_ASSETS" --only "$part" ||
    echo "test: no $part to be fetched here; its tests are skipped"
done
ctest --preset "$preset"
