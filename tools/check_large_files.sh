#!/usr/bin/env bash
# No file over 1 MiB in the tree: models, texts and builds stay outside.  usage: check_large_files.sh [FILE...]
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -gt 0 ]; then files=("$@"); else mapfile -d '' -t files < <(git ls-files -z); fi
status=0
for file in "${files[@]}"; do
  size=$(stat -c %s -- "$file" 2>/dev/null || echo 0)
  if [ "$size" -gt $((1 << 20)) ]; then
    echo "$file: $size bytes, at most 1048576 are committed" >&2
    status=1
  fi
done
exit $status
