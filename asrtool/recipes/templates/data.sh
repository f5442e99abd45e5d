#!/usr/bin/env bash
${head}
set -euo pipefail

corpus=""
options=corpus
. "$$ASRTOOL_ROOT/local/parse_options.sh"

${steps}
