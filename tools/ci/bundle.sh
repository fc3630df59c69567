#!/usr/bin/env bash
# The whole tree builds from tools/bundle_deps' folder alone: with the packages' own headers and libraries hidden
# where this user may make a mount namespace, and with no compile command that looks anywhere else.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=build/bundle

build_from_bundle() {
  # Unoptimised: this proves that it compiles and links; build/release proves what it computes.
  cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS=-O0 -DSPEAR_DEPS_DIR=deps -DSPEAR_WERROR=OFF
  cmake --build "$build"
}

# Called in a mount namespace of our own: nothing outside it changes. Shared libraries stay: mount itself needs some.
hide_packages() {
  local empty triplet tree file
  empty=$(mktemp -d)
  triplet=$(g++ -dumpmachine)
  for tree in nlohmann tl fmt CLI openssl "$triplet/openssl" curl "$triplet/curl" eigen3 gtest oneapi; do
    [ ! -d "/usr/include/$tree" ] || mount --bind "$empty" "/usr/include/$tree"
  done
  # Shared libraries stay: the tools themselves run on some of them. Links to them are refused below.
  for file in /usr/include/{xxhash,pcre2,utf8proc}.h \
    /usr/lib/"$triplet"/lib{xxhash,pcre2-8,utf8proc,crypto,gtest,gtest_main,curl,openblas}.a; do
    [ ! -e "$file" ] || mount --bind /dev/null "$(readlink -f "$file")"
  done
  if echo '#include <fmt/core.h>' | g++ -x c++ -fsyntax-only - 2>/dev/null; then
    echo "bundle: the packages are still visible" >&2
    return 1
  fi
}

if [ "${1:-}" = --hidden ]; then
  hide_packages
  build_from_bundle
  exit
fi

tools/bundle_deps deps
rm -rf "$build"
if unshare --mount true 2>/dev/null; then
  unshare --mount tools/ci/bundle.sh --hidden
elif unshare --user --map-root-user --mount true 2>/dev/null; then
  unshare --user --map-root-user --mount tools/ci/bundle.sh --hidden
else
  echo "bundle: this user may not hide the packages; only the compile commands are checked"
  build_from_bundle
fi
# Every include folder and linked file is ours, the bundle's or the compiler's.
if grep -oE -- '-(I|isystem) ?[^ "]+' "$build/compile_commands.json" | sort -u |
  grep -vE "$PWD/(src|tests|deps/include|$build)"; then
  echo "bundle: the include folders above lie outside the bundle" >&2
  exit 1
fi
if grep -oE '/usr/lib/[^ ]*lib(fmt|xxhash|pcre2-8|utf8proc|crypto|gtest|gtest_main|curl|openblas|dnnl)\.[a-z]+' "$build/build.ninja"; then
  echo "bundle: the libraries above are linked from outside the bundle" >&2
  exit 1
fi
if [ -x "$build/spear" ]; then "$build/spear" --version; fi
"$build/tests/base/base_test" --gtest_brief=1
echo "bundle: built from $(du -sh deps | cut -f1) of headers and static libraries"
