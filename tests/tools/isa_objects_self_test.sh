#!/usr/bin/env bash
# check_isa_objects.sh passes a disciplined object and refuses one with a weak symbol, an empty one, a missing one.
set -euo pipefail
compiler=${1:?usage: isa_objects_self_test.sh COMPILER}
check=$(cd "$(dirname "$0")/../.." && pwd)/tools/check_isa_objects.sh
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

compile() { printf '%s\n' "$2" | "$compiler" -x c++ -O0 -c -o "$1.o" -; }
compile good 'namespace { int twice(int x) { return 2 * x; } } int kernel(int x) { return twice(x); }'
compile weak 'inline int twice(int x) { return 2 * x; } int kernel(int x) { return twice(x); }'
compile empty 'namespace { [[maybe_unused]] int twice(int x) { return 2 * x; } }'

expect() {  # expect STATUS OBJECT
  echo "$folder/$2.o" > isa_objects.txt
  local status=0
  "$check" "$folder" > output 2>&1 || status=$?
  if [ "$status" -ne "$1" ]; then
    echo "$2: exit $status, expected $1"
    cat output
    exit 1
  fi
}
expect 0 good
expect 1 weak
grep -q 'twice(int)' output
expect 1 empty
expect 1 missing
: > isa_objects.txt
if "$check" "$folder" > output 2>&1; then echo "an empty list passed"; exit 1; fi
echo "isa_objects_self_test: 5 cases as expected"
