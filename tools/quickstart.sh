#!/usr/bin/env bash
# From a fresh Debian 12 machine to a compensated 4-bit model one can talk to: installs packages, builds spear,
# obtains SmolLM2-135M-Instruct, compresses it, measures it against its own original and writes a report.
# Every step may be repeated; what is already there is reused.
# usage: tools/quickstart.sh [FOLDER]      default: quickstart
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-quickstart}
spear=$PWD/build/release/spear

say() { printf '\n== %s\n' "$*"; }

say "packages"
tools/install_packages.sh build
say "build"
cmake --preset release -DSPEAR_BUILD_TESTS=OFF > /dev/null
cmake --build --preset release --target spear
mkdir -p "$folder"
cd "$folder"
say "model"
"$spear" pull smollm2-135m
say "compress"
"$spear" compress smollm2-135m --recipe closed -o smollm2.spear
say "report"
"$spear" report smollm2.spear -o report.html

cat <<END

Done.
  $folder/smollm2.spear   the compensated 4-bit model
  $folder/report.html     what it is worth, against its original

Talk to it:
  build/release/spear chat $folder/smollm2.spear
END
