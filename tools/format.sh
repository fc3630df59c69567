#!/usr/bin/env bash
# Formats C++ and CUDA sources in place; with --check only says which differ (exit 1).
# usage: tools/format.sh [--check] [FILE...]      default: every tracked source
set -euo pipefail
cd "$(dirname "$0")/.."

mode=(-i)
if [ "${1:-}" = --check ]; then
  mode=(--dry-run --Werror)
  shift
fi
# One version, because versions format differently: Debian 12's.
formatter=$(command -v clang-format-14 || command -v clang-format) || {
  echo "format: no clang-format-14; run tools/install_packages.sh test" >&2
  exit 1
}
if [ $# -gt 0 ]; then
  files=("$@")
else
  mapfile -t files < <(git ls-files -- '*.h' '*.cpp' '*.inl' '*.cu' '*.cuh')
fi
printf '%s\0' "${files[@]}" | xargs -0 -r -n 20 -P 2 "$formatter" "${mode[@]}"
echo "format: ${#files[@]} files"
