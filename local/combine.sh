#!/usr/bin/env bash
# Combines trained systems of a work folder (ROVER), and adapts them to the words of each other: each system is adapted to
# the combined words of all, recognises with these weights, and the new results are combined. A system learns most from
# the words that others recognise better.
#
#   bash local/combine.sh --work egs/librispeech --systems "exp/a exp/b" --method rescored_adapted
#   asrtool score egs/librispeech/exp/combined/decode/test/rescored_round2 --against egs/librispeech/exp/a/decode/test/rescored
#
#   --systems "EXP EXP ..."   two or more systems of the work folder, after stage 5 of their recipe (required)
#   --work DIR                work folder of the recipe (default the current folder)
#   --method METHOD           results to combine first: graph, rescored or neural, or one of these with _adapted. All
#                             rounds recognise by this method (default rescored)
#   --rounds N                rounds of adaptation (default 2); 0 combines only
#   --sets "SET SET"          sets to recognise (default all sets of the recipe)
#   --out EXP                 folder for decode/SET/METHOD_roundN, the combined results; METHOD_round0 is without
#                             adaptation to combined words (default exp/combined)
#   --decoding-weights FILE   decoding weights of the graph search (default the tuned weights of each system)
#   --precision P             precision of the models: fp32, bf16 or auto (default auto)
#   --jobs N                  processes of the graph search (default 2)
#   --ranks N                 processes that adapt (default 1)
set -euo pipefail
CDPATH="" cd -- "$(dirname "$0")"
driver=$PWD

systems="" work=. method=rescored rounds=2 sets="" out=exp/combined decoding_weights="" precision=auto jobs=2 ranks=1
options="systems work method rounds sets out decoding_weights precision jobs ranks"
path_options="work decoding_weights"
. ./parse_options.sh
. ./train.sh
. ./decode.sh
repeated=${method%_adapted} # what each round runs
require_choice --method "$repeated" graph rescored neural
require_choice --precision "$precision" fp32 bf16 auto
[[ $rounds =~ ^[0-9]$ ]] || option_error "--rounds is a number from 0 to 9, not '$rounds'"
[[ $jobs =~ ^[1-9][0-9]{0,8}$ && $ranks =~ ^[1-9][0-9]{0,8}$ ]] || option_error "--jobs and --ranks are positive numbers"
[[ $systems =~ [^[:space:]][[:space:]]+[^[:space:]] ]] || option_error "--systems names two systems or more, not '$systems'"
cd "$work" 2>/dev/null || option_error "--work: no such folder: $work"
sets=${sets:-$(cat data/scored_sets 2>/dev/null || true)}
[ -n "${sets// /}" ] || option_error "--sets: which sets? $work has no data/scored_sets: is it the work folder of a recipe?"
. "$driver/path.sh"

# result_of SYSTEM SET ROUND: prints the folder of what a system recognises in a round.
result_of() {
    if [ "$3" = 0 ]; then echo "$1/decode/$2/$method"; else echo "$1/decode/$2/${repeated}_adapted-round$3"; fi
}

# combined SET ROUND: prints the folder of the combined words of a round.
combined() { echo "$out/decode/$1/${repeated}_round$2"; }

# combine_round ROUND: combines what all systems have recognised in this round, and prints the error rates.
combine_round() {
    local round=$1 name system folders results=()
    for name in $sets; do
        folders=()
        for system in $systems; do folders+=("$(result_of "$system" "$name" "$round")"); done
        asrtool combine "${folders[@]}" --out "$(combined "$name" "$round")" --overwrite
        results+=("${folders[@]}" "$(combined "$name" "$round")")
    done
    echo "Round $round:"
    asrtool score "${results[@]}"
}

# recognise SYSTEM ROUND: adapts a system to the combined words of the round before, and recognises all sets.
recognise() {
    local system=$1 round=$2 name values lang features=data weights adapted methods=$repeated
    values=$(python3 "$driver/config_values.py" "$system/config.yaml" data.tokenizer features.source)
    lang=$(dirname "${values%%$'\n'*}")
    if [ "${values##*$'\n'}" = stored ]; then features=data/fbank; fi
    graph=$lang/graph
    if [ -d "$system/graph" ]; then graph=$system/graph; fi # with probabilities of pronunciations
    weights=${decoding_weights:-$system/decode/dev/decoding_weights.json}
    if [ "$repeated" = neural ]; then methods="rescored neural"; fi
    for name in $sets; do
        adapted=$system/adapted-round$round/$name
        run_ranks "$ranks" adapt "$system" "$features/$name.jsonl.gz" --hyps "$(combined "$name" $((round - 1)))" \
            --out "$adapted"
        decode_once "$system" "$lang" "$weights" "$jobs" "$methods" "_adapted-round$round" "$features/$name.jsonl.gz" \
            --adapted "$adapted" --tag "round$round"
    done
}

for system in $systems; do
    for name in $sets; do
        folder=$(result_of "$system" "$name" 0)
        [ -f "$folder/hyps.jsonl" ] || option_error "--systems: no results in $work/$folder: run stage 5 of its recipe" \
            "with $repeated in --decode"
    done
done
combine_round 0
for ((round = 1; round <= rounds; round++)); do
    for system in $systems; do recognise "$system" "$round"; done
    combine_round "$round"
done
