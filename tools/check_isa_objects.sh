#!/usr/bin/env bash
# An object compiled for one instruction set must define nothing but its own functions: an inline function from a
# shared header would be a weak symbol, the linker might keep this copy for the whole program, and an older
# processor would then fail in code that has nothing to do with SIMD.
# usage: check_isa_objects.sh BUILD_DIR      reads BUILD_DIR/isa_objects.txt (spear_isa_sources in cmake/isa.cmake)
set -euo pipefail
build=${1:?usage: check_isa_objects.sh BUILD_DIR}
list=$build/isa_objects.txt
[ -s "$list" ] || { echo "check_isa_objects: $list is missing or empty" >&2; exit 1; }
status=0
count=0
while IFS= read -r object; do
  [ -n "$object" ] || continue
  [ -f "$object" ] || { echo "$object: not built" >&2; status=1; continue; }
  count=$((count + 1))
  # W, V: weak functions and objects; u: unique globals (inline static data).
  weak=$(nm -C "$object" | awk '$2 ~ /^[WVu]$/')
  if [ -n "$weak" ]; then
    echo "$object: weak symbols compiled for one instruction set:" >&2
    echo "$weak" | head -10 >&2
    status=1
  fi
  defined=$(nm "$object" | awk '$2 == "T"' | wc -l)
  if [ "$defined" -eq 0 ]; then
    echo "$object: defines no function" >&2
    status=1
  fi
done < "$list"
echo "check_isa_objects: $count objects"
exit $status
