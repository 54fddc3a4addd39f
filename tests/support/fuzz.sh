#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Runs one fuzzer: `fuzz.sh NAME SECONDS`.  It starts from the seeds that tests/fuzz/seed.py makes of the vectors and
# from tests/fuzz/corpus/NAME; what it finds on the way stays in build/fuzz/corpus/NAME and is used again next time.
# An input that breaks something is left in build/fuzz/found/NAME-*: mend the bug, then keep the input in
# tests/fuzz/regressions/NAME, where the ordinary tests run it for ever.
set -euo pipefail
cd "$(dirname "$0")/../.."

name=${1:?usage: fuzz.sh NAME SECONDS}
seconds=${2:?usage: fuzz.sh NAME SECONDS}
binary=build/fuzz/tests/fuzz/fuzz_$name
corpus=build/fuzz/corpus/$name
seeds=build/fuzz-seeds/$name
mkdir -p "$corpus" build/fuzz/found

/usr/bin/python3 tests/fuzz/seed.py "$name" "$seeds"
inputs=("$corpus" "$seeds")
for folder in "tests/fuzz/corpus/$name" "tests/fuzz/regressions/$name"; do
    [ ! -d "$folder" ] || inputs+=("$folder")
done
options=(-max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1
    -artifact_prefix="build/fuzz/found/$name-")
[ ! -f spec/crabcache.dict ] || options+=(-dict=spec/crabcache.dict)
exec "$binary" "${options[@]}" "${inputs[@]}"
