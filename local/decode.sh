#!/usr/bin/env bash
# Source this after train.sh: stages 5 and 6, the same in every recipe.
#
#   decode_stages TUNE MANIFEST ...     decodes and scores $exp; the graph is $lang/graph, and its scales are chosen on
#                                       the manifest TUNE; where that is "", all are 1
#
# Options of the recipe that it uses:
#   --decode "METHOD ..."   of greedy, prefix and graph
#   --jobs N

: "${decode:=greedy prefix graph}" "${jobs:=1}"
for method in $decode; do
    [[ $method =~ ^(greedy|prefix|graph)$ ]] || stages_stop "--decode takes greedy, prefix and graph, not '$method'"
done

decode_stages() {
    local tune=$1 sets=("${@:2}") graph=(--graph "$lang/graph") method methods=()
    if begin 5 decode "${decode// /, }" . "$exp" "$decode"; then
        if [ -f "$exp/priors.json" ]; then graph+=(--priors "$exp/priors.json"); fi # of a frame-level model
        for method in $decode; do
            if [ "$method" != graph ]; then methods+=(--method "$method"); fi
        done
        if [ -n "${methods[*]}" ]; then asrtool decode "$exp" "${sets[@]}" "${methods[@]}"; fi
        if [[ $decode == *graph* ]]; then
            if [ -n "$tune" ]; then
                asrtool tune "$exp" "$tune" "${graph[@]}"
                graph+=(--scales "$exp/decode/$(basename "$tune" .jsonl.gz)/scales.json")
            fi
            asrtool decode "$exp" "${sets[@]}" --method graph "${graph[@]}" --jobs "$jobs"
        fi
        finish "$exp/decode/*/{${decode// /,}}/hyps.jsonl"
    fi
    if begin 6 score "word error rates with 95 % intervals" . "$exp"; then
        for method in $decode; do
            echo "$method:"
            asrtool score $(for name in "${sets[@]}"; do echo "$exp/decode/$(basename "$name" .jsonl.gz)/$method"; done)
        done | tee "$exp/results.txt"
        finish "$exp/decode/*/*/{wer.json,report.txt,alignments.txt,alignments.jsonl}"
    fi
}
