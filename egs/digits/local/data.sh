#!/usr/bin/env bash
# Writes the manifests of synthetic digits, data/{train,dev,test}.jsonl.gz, and the names of the sets to score,
# data/scored_sets. It runs in the work folder; run.sh passes its own options of the same names.
#
#   --train N --dev N --test N  number of utterances of each set
#   --jobs N                    processes that synthesise
set -euo pipefail

train=3600 dev=300 test=500 jobs=2
options="train dev test jobs"
. "$ASRTOOL_ROOT/local/parse_options.sh"

corpus=download/digits_${train}_${dev}_$test
python3 "$recipe/local/synthesise.py" "$corpus" --train "$train" --dev "$dev" --test "$test" --jobs "$jobs"
for name in train dev test; do
    asrtool prepare librispeech "$corpus" "data/$name.jsonl.gz" --part "$name-digits"
done
echo dev test >data/scored_sets
