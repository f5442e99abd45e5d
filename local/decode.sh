#!/usr/bin/env bash
# Source this after train.sh: stages 5, 6 and 7, the same in every recipe.
#
#   decode_stages TUNE MANIFEST ...     decodes and scores $exp; the graph is $lang/graph, and its scales are chosen on
#                                       the manifest TUNE; where that is "", all are 1
#   stream_stage TUNE MANIFEST ...      the same chunk by chunk from raw audio, where the model can
#
# Options of the recipe that it uses:
#   --decode "METHOD ..."   of greedy, prefix, graph, rescored (the graph's lattices with $lang/rescore.npz in the place
#                           of $lang/graph.arpa.gz, the graph's own) and neural (of the n best of these the one with
#                           the fewest expected errors by the neural language model $lang/neural.pt, too, which the
#                           recipe's make_neural_lm makes); at last adapted, once or several times: as the method
#                           before it, with the model adapted to each speaker by the words that were found last
#   --scales FILE           of the graph's search, as `asrtool tune` writes it, in the place of those chosen on TUNE: say
#                           of a cross-validation, for few speakers on dev make scales that are worse for others
#   --jobs N

: "${decode:=greedy prefix graph}" "${scales:=}" "${jobs:=1}"
# Of searches for lattices, which know no --max-active: more than four fifths of the arcs of 16 in half the time or less
beam_of_lattices=12
hypotheses=100 # an utterance, for the neural language model
neural_weight=0.7 # of it, the rest is the 4-gram's; better than 0.5 for speakers held out (librispeech's TUNING.md)
for method in $decode; do
    [[ $method =~ ^(greedy|prefix|graph|rescored|neural|adapted)$ ]] ||
        stages_stop "--decode takes greedy, prefix, graph, rescored, neural and adapted, not '$method'"
done
decode=$(echo $decode) # single spaces
methods=${decode%% adapted*} # without the rounds of adaptation
rounds=${decode#"$methods"} best=${methods##* }
[[ $methods != *adapted* && $rounds =~ ^(\ adapted)*$ ]] ||
    stages_stop "--decode: adapted comes last, after the method that it repeats"
if [ -n "$scales" ]; then
    scales=$(located "$scales")
    [ -f "$scales" ] || stages_stop "--scales: no such file: $scales; give what \`asrtool tune\` wrote"
fi
[[ $decode != *neural* || $decode == *rescored* ]] || stages_stop "--decode neural needs rescored: it takes its n best"

# What the search in the graph takes: sets $graph. $1 is the manifest of scales.
graph_options() {
    local tuned=${scales:-$exp/decode/$(basename "$1" .jsonl.gz)/scales.json}
    graph=(--graph "$lang/graph")
    if [ -f "$exp/priors.json" ]; then graph+=(--priors "$exp/priors.json"); fi # of a frame-level model
    if [ -n "$1$scales" ] && [ -f "$tuned" ]; then graph+=(--scales "$tuned"); fi
}

# Decodes with the methods $1; their folders end in $2. The rest are manifests, and options for weights of speakers.
# The recipe owns these folders: what other options have left there is replaced.
recognise() {
    local method plain=() nbest=() name
    for method in $1; do
        if [[ $method =~ greedy|prefix ]]; then plain+=(--method "$method"); fi
    done
    if [ -n "${plain[*]}" ]; then asrtool decode "$exp" "${@:3}" --overwrite "${plain[@]}"; fi
    if [[ $1 == *graph* ]]; then
        asrtool decode "$exp" "${@:3}" --overwrite --method graph "${graph[@]}" --jobs "$jobs"
    fi
    if [[ $1 == *neural* ]]; then nbest=(--nbest $hypotheses); fi
    if [[ $1 =~ rescored|neural ]]; then
        asrtool decode "$exp" "${@:3}" --overwrite --method graph "${graph[@]}" --jobs "$jobs" "${nbest[@]}" \
            --beam $beam_of_lattices --rescore "$lang/rescore.npz" --graph-lm "$lang/graph.arpa.gz"
    fi
    if [[ $1 == *neural* ]]; then
        declare -F make_neural_lm >/dev/null || stages_stop "--decode neural: this recipe has no make_neural_lm"
        [ -f "$lang/neural.pt" ] || make_neural_lm
        for name in "${@:3}"; do
            [[ $name != --adapted ]] || break
            name=$exp/decode/$(basename "$name" .jsonl.gz)
            asrtool rescore "$name/rescored$2" "$name/neural$2" --lm "$lang/neural.pt" --ngram "$lang/rescore.npz" \
                --weight $neural_weight --mbr --overwrite
        done
    fi
}

decode_stages() {
    local tune=$1 sets=("${@:2}") graph adapted name method round folders suffix=() found=$methods
    for round in $rounds; do # "_adapted", "_adapted2", ...
        suffix+=("_adapted$([ ${#suffix[@]} = 0 ] || echo $((${#suffix[@]} + 1)))")
        found+=" $best${suffix[-1]}"
    done
    if begin 5 decode "${decode// /, }" . "$exp" "$decode" ${scales:+"$scales"}; then
        if [[ $decode =~ graph|rescored && -n $tune && -z $scales ]]; then
            graph_options ""
            asrtool tune "$exp" "$tune" "${graph[@]}" --beam $beam_of_lattices --jobs "$jobs"
        fi
        graph_options "$tune"
        recognise "$methods" "" "${sets[@]}"
        for name in "${sets[@]}"; do
            method=$best
            for round in "${suffix[@]}"; do
                adapted=$exp/${round#_}/$(basename "$name" .jsonl.gz)
                on_this_machine adapt "$exp" "$name" --hyps "$exp/decode/${adapted##*/}/$method" --out "$adapted"
                recognise "$best" "$round" "$name" --adapted "$adapted"
                method=$best$round
            done
        done
        finish "$exp/decode/*/{${found// /,}}/hyps.jsonl"
    fi
    if begin 6 score "word error rates with 95 % intervals" . "$exp"; then
        for method in $found; do
            folders=()
            for name in "${sets[@]}"; do folders+=("$exp/decode/$(basename "$name" .jsonl.gz)/$method"); done
            echo "$method:"
            asrtool score "${folders[@]}"
        done | tee "$exp/results.txt"
        finish "$exp/decode/*/*/{wer.json,report.txt,alignments.txt,alignments.jsonl}"
    fi
}

stream_stage() {
    local tune=$1 set name method graph options
    begin 7 stream "chunk by chunk: ${decode// /, }" . "$exp" "$decode" || return 0
    if asrtool info "$conf" --units 2 | grep -q "^streams *no"; then
        echo "$(basename "$conf") needs whole utterances: nothing to do"
    else
        graph_options "$tune"
        for set in "${@:2}"; do
            name=$(basename "$set" .jsonl.gz)
            asrtool align "$exp" "$set" "$exp/aligned/$name.jsonl.gz" || [ $? = 1 ] # 1: some words have no units
            for method in $(echo "$methods" | sed "s/rescored\|neural//g"); do
                options=(--method "$method" --alignments "$exp/aligned/$name.jsonl.gz")
                if [ "$method" = graph ]; then options+=("${graph[@]}"); fi
                asrtool stream "$exp" "$set" --overwrite "${options[@]}"
                asrtool score "$exp/stream/$name/$method"
            done
        done
    fi
    finish "$exp/stream/*/*/stream.json"
}
