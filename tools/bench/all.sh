#!/usr/bin/env bash
# Measures all benchmarks that need no model and no corpus, prints which figures moved by more than 10 % since the stored
# ones (tools/bench/results/*.json), stores the new ones, and writes the tables of docs/benchmarks.md:
#
#   bash tools/bench/all.sh                       # on a quiet machine, in under an hour
#   bash tools/bench/all.sh --only "loader lm"    # some of them
#   bash tools/bench/all.sh --quick --out /tmp/x  # tests that all run; stores nothing, and writes the page to /tmp/x
#
#   --out DIR          folder for the figures and the outputs of this run (default exp/bench)
#   --only "NAME ..."  benchmarks to measure (default all)
#   --minutes N        time after which no further benchmark is started (default 50)
#   --keep             print what moved, but store nothing and write no page
set -euo pipefail
CDPATH="" cd -- "$(dirname "${BASH_SOURCE[0]}")/../.."
. local/path.sh

out=exp/bench only="" minutes=50 quick="" keep=""
while [ $# -gt 0 ]; do
    case $1 in
    --out | --only | --minutes)
        [ $# -gt 1 ] || { echo "$0: error: $1 needs a value" >&2; exit 2; }
        printf -v "${1#--}" %s "$2"
        shift
        ;;
    --quick | --keep) printf -v "${1#--}" %s "$1" ;;
    *)
        echo "$0: error: unknown option $1; the options are --out, --only, --minutes, --quick and --keep" >&2
        exit 2
        ;;
    esac
    shift
done
mkdir -p "$out"
rm -f "$out"/*.json
failed=0 known=""

# measure NAME [ARGUMENT...] -- [OPTION...]: runs a benchmark. The options are sizes, which --quick replaces.
measure() {
    local name=$1 arguments=() begin=$SECONDS status=0
    shift
    known+=" $name"
    while [ "$1" != -- ]; do
        arguments+=("$1")
        shift
    done
    shift
    if [ -n "$only" ] && [[ " $only " != *" $name "* ]]; then return 0; fi
    if [ $SECONDS -gt $((60 * minutes)) ]; then
        echo "$name: left out, $minutes minutes are over"
        return 0
    fi
    if [ -n "$quick" ]; then set -- --quick; fi
    python3 "tools/bench/$name.py" "${arguments[@]}" "$@" --json "$out/$name.json" >"$out/$name.txt" 2>&1 || status=$?
    if [ $status = 0 ]; then
        echo "$name: $((SECONDS - begin)) s, $out/$name.txt"
    else
        rm -f "$out/$name.json"
        echo "$name: exit status $status: $(tail -n 1 "$out/$name.txt")"
        if [ $status != 2 ]; then failed=1; fi # 2: something is not installed
    fi
}

# manifest: writes a manifest of many cuts for the benchmark `scale`, without audio.
manifest() {
    if [ -n "$only" ] && [[ " $only " != *" scale "* ]]; then return 0; fi
    rm -rf "$out/manifest"
    python3 tools/simulate_manifest.py "$out/manifest" --hours "$([ -n "$quick" ] && echo 20 || echo 6500)" \
        --cuts-per-file "$([ -n "$quick" ] && echo 1000 || echo 10000)" >"$out/manifest.txt" 2>&1
}

measure startup -- --repeats 5
measure features -- --limit 40
measure loader -- --limit 40
measure augmentation --
measure planned_training --
measure engine -- --repeats 3
measure training_time -- --steps 60
measure training_step -- --dims 512 --heads 8 --precisions bf16 --repeats 3 --limit 40
measure objectives -- --limit 40
measure decoding -- --limit 40
measure graph_decoding -- --limit 40
measure streaming -- --limit 40
measure transcribe -- --limit 40
measure lm -- --limit 40
measure graphs -- --limit 40
measure hotwords --
manifest
measure scale "$out/manifest" -- --batches 1000
measure other_toolkits -- --repeats 3 --limit 60
for name in $only; do
    [[ " $known " == *" $name "* ]] || { echo "$0: error: no benchmark $name; there are$known" >&2; exit 2; }
done

echo
echo "Figures that moved by more than 10 %:"
python3 tools/bench/figures.py "$out"
if [ -n "$quick" ]; then
    python3 tools/bench/page.py "$out" --out "$out/benchmarks.md"
elif [ -z "$keep" ]; then
    mkdir -p tools/bench/results
    cp "$out"/*.json tools/bench/results/
    python3 tools/bench/page.py
fi
echo "$((SECONDS / 60)) minutes"
exit $failed
