#!/usr/bin/env bash
# cmake --install puts a program into place that runs from there.
set -euo pipefail
cd "$(dirname "$0")/../.."
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT
cmake --install build/release --prefix "$prefix" > /dev/null
"$prefix/bin/spear" --version
"$prefix/bin/spear" --help > /dev/null
[ -s "$prefix/share/doc/spear/LICENSE" ]
