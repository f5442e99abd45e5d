#!/usr/bin/env bash
# Writes the manifests of the yesno corpus, data/train.jsonl.gz and data/test.jsonl.gz, and the names of the sets to
# score, data/scored_sets: 30 recordings are too few to hold a dev set back. It runs in the work folder; run.sh passes
# its own options of the same names.
#
#   --corpus-dir DIR            the folder with the 60 .wav files, or the folder above it (default: download)
#   --mirror URL                OpenSLR's resources
set -euo pipefail

corpus_dir="" mirror=""
options="corpus_dir mirror"
. "$ASRTOOL_ROOT/local/parse_options.sh"

if [ -z "$corpus_dir" ]; then
    corpus_dir=download
    python3 "$ASRTOOL_ROOT/local/download.py" "$corpus_dir" waves_yesno \
        --url "$mirror" --sums "$recipe/local/sha256sum.txt"
fi
for name in train test; do
    asrtool prepare yesno "$corpus_dir" data/$name.jsonl.gz --part $name --sampling-rate 8000
done
echo test >data/scored_sets
