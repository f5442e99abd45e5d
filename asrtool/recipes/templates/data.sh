#!/usr/bin/env bash
# Writes data/train.jsonl.gz${others}, and the names of the sets to score, data/scored_sets. It runs
# in the work folder; run.sh passes its option --corpus.
set -euo pipefail

corpus=""
options=corpus
. "$$ASRTOOL_ROOT/local/parse_options.sh"

${steps}
