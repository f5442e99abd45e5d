#!/usr/bin/env bash
# Everything that only a GPU can tell, in at most eleven minutes on one H100 or H200:
#
#   bash tools/bench/gpu.sh OUT            # OUT/*.json has the figures of each part, OUT/report.txt what was printed
#   bash tools/bench/gpu.sh OUT --quick    # tiny sizes, also on a CPU: tests that all of it runs
#
# It needs the installed asrtool (torch built for CUDA) and no network. What a part needs and is missing (k2, triton,
# espeakng-loader for the digits) is named, and the part is left out. tools/bench/gpu.py has the parts and their limits.
set -euo pipefail
if [ $# -lt 1 ] || [[ $1 == -* ]]; then
    echo "gpu.sh: give the folder for the figures: bash tools/bench/gpu.sh OUT [--quick]" >&2
    exit 2
fi
root=$(CDPATH="" cd -- "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
mkdir -p "$1"
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" python3 "$root/tools/bench/gpu.py" "$@" 2>&1 | tee "$1/report.txt"
exit "${PIPESTATUS[0]}"
