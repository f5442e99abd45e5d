#!/usr/bin/env bash
# Source this after train.sh. It defines what stages 5, 6 and 7 of the recipes share: decoding, scoring and streaming.
#
# The option --decode is a list of methods, each of which writes the folder EXP/decode/SET/METHOD:
#
#   greedy      the best unit of each frame
#   prefix      CTC prefix beam search
#   graph       search in the graph LANG/graph with a word n-gram
#   rescored    lattices from the graph, rescored with a larger n-gram: LANG/rescore.npz instead of LANG/graph.arpa.gz
#   neural      the 100 best hypotheses of these lattices, by minimum Bayes risk under a mixture of the n-gram and the
#               neural language model LANG/neural.pt
#   fmllr       after the methods above: the last of them again, with the features of each speaker transformed to those
#               of an average speaker, by the words that this method recognised; the folder is METHOD_fmllr
#   adapted     last, once or more often: the last method again, with the model adapted to each speaker on the words
#               that were recognised before; the folders are METHOD_adapted, METHOD_adapted2, ... or, after fmllr,
#               METHOD_fmllr_adapted, ...
#
# For the two searches in the graph, WEIGHTS is a file of decoding weights that `asrtool tune` has written (acoustic
# scale, blank penalty and insertion penalty). If it is "" or does not exist, the defaults of `asrtool decode` apply.
# $precision is the precision of the model, as in `asrtool decode --precision`.

# Searches for lattices ignore --max-active: a beam of 12 keeps four fifths of the arcs of 16 in half the time or less.
lattice_beam=12
nbest=100 # hypotheses of an utterance that the neural language model scores
neural_weight=0.7 # of the neural model in the mixture; better than 0.5 on held-out speakers (egs/librispeech/TUNING.md)

# check_decode_options DECODE WEIGHTS METHOD...: exits with an error unless DECODE is a valid list of these METHODs, and
# WEIGHTS is "" or a file.
check_decode_options() {
    local methods=$1 weights=$2 method first words
    shift 2
    read -r -a words <<<"$methods"
    [ ${#words[@]} -gt 0 ] || option_error "--decode needs a method: ${*}"
    for method in "${words[@]}"; do require_choice --decode "$method" "$@"; done
    first=$(first_pass_methods "$methods")
    if [ -z "$first" ] || [[ " $first " =~ " adapted "|" fmllr " ]]; then
        option_error "--decode: fmllr and then adapted come last, after the method that they repeat"
    fi
    if [[ $methods == *neural* && $methods != *rescored* ]]; then
        option_error "--decode neural needs rescored: it chooses among the best hypotheses of the rescored lattices"
    fi
    if [ -n "$weights" ] && [ ! -f "$weights" ]; then
        option_error "--decoding-weights: no such file: $weights; give a file that \`asrtool tune\` has written"
    fi
}

# first_pass_methods DECODE: prints the methods without fmllr and the rounds of adaptation at the end.
first_pass_methods() {
    local methods
    methods=$(echo $1) # single spaces
    while [[ $methods == *" adapted" ]]; do methods=${methods% adapted}; done
    methods=${methods% fmllr}
    if [[ ! $methods =~ ^(adapted|fmllr)$ ]]; then echo "$methods"; fi
}

# adaptation_suffixes DECODE: prints the endings of the folders of the passes after the first: _fmllr, if DECODE has it,
# and then the endings of the rounds of adaptation: _adapted, _adapted2, ..., or _fmllr_adapted, ...
adaptation_suffixes() {
    local first methods method before="" round=0
    methods=$(echo $1)
    first=$(first_pass_methods "$1")
    for method in ${methods#"$first"}; do
        if [ "$method" = fmllr ]; then
            before=_fmllr
            echo _fmllr
            continue
        fi
        round=$((round + 1))
        if [ $round = 1 ]; then echo "${before}_adapted"; else echo "${before}_adapted$round"; fi
    done
}

# result_folders DECODE: prints the names of the folders in EXP/decode/SET that these methods write.
result_folders() {
    local first suffix
    first=$(first_pass_methods "$1")
    printf '%s\n' $first
    for suffix in $(adaptation_suffixes "$1"); do echo "${first##* }$suffix"; done
}

# graph_options ARRAY EXP WEIGHTS: puts the options of a search in $graph into the array that is named ARRAY.
graph_options() {
    local -n graph_options_array=$1
    local exp=$2 weights=$3
    graph_options_array=(--graph "$graph")
    if [ -f "$exp/priors.json" ]; then graph_options_array+=(--priors "$exp/priors.json"); fi # of objective ce
    if [ -n "$weights" ] && [ -f "$weights" ]; then graph_options_array+=(--decoding-weights "$weights"); fi
}

# tune_decoding EXP JOBS MANIFEST: finds the best decoding weights on MANIFEST, and writes them to
# EXP/decode/SET/decoding_weights.json.
tune_decoding() {
    local exp=$1 jobs=$2 manifest=$3 search
    graph_options search "$exp" ""
    asrtool tune "$exp" "$manifest" "${search[@]}" --beam "$lattice_beam" --jobs "$jobs" --precision "$precision"
}

# decode_once EXP LANG WEIGHTS JOBS METHODS SUFFIX ARGUMENT...: runs `asrtool decode` by METHODS. ARGUMENTs are
# manifests, and then perhaps options. The names of the folders of results end in SUFFIX. Earlier results are replaced.
decode_once() {
    local exp=$1 lang=$2 weights=$3 jobs=$4 methods=$5 suffix=$6
    local method argument folder search on_units=() lattice_options=()
    shift 6
    set -- "$@" --precision "$precision"
    graph_options search "$exp" "$weights"
    for method in $methods; do
        if [[ $method =~ ^(greedy|prefix)$ ]]; then on_units+=(--method "$method"); fi
    done
    if [ ${#on_units[@]} -gt 0 ]; then
        asrtool decode "$exp" "$@" --overwrite "${on_units[@]}"
    fi
    if [[ $methods == *graph* ]]; then
        asrtool decode "$exp" "$@" --overwrite --method graph "${search[@]}" --jobs "$jobs"
    fi
    if [[ $methods =~ rescored|neural ]]; then
        if [[ $methods == *neural* ]]; then lattice_options=(--nbest "$nbest"); fi
        asrtool decode "$exp" "$@" --overwrite --method graph "${search[@]}" --jobs "$jobs" "${lattice_options[@]}" \
            --beam "$lattice_beam" --rescore "$lang/rescore.npz" --graph-lm "$lang/graph.arpa.gz"
    fi
    if [[ $methods == *neural* ]]; then
        for argument in "$@"; do
            if [[ $argument == --* ]]; then break; fi
            folder=$exp/decode/$(basename "$argument" .jsonl.gz)
            asrtool rescore "$folder/rescored$suffix" "$folder/neural$suffix" --overwrite --lm "$lang/neural.pt" \
                --ngram "$lang/rescore.npz" --weight "$neural_weight" --mbr
        done
    fi
}

# decode_sets EXP LANG WEIGHTS FMLLR JOBS RANKS DECODE MANIFEST...: decodes each manifest by all methods of DECODE, with
# transforms of the speakers by the GMM in the folder FMLLR, and with the rounds of adaptation, for which RANKS processes
# adapt the model to the speakers.
decode_sets() {
    local exp=$1 lang=$2 weights=$3 fmllr=$4 jobs=$5 ranks=$6 methods=$7 first last manifest name source suffix adapted
    local transforms options
    shift 7
    first=$(first_pass_methods "$methods")
    last=${first##* }
    decode_once "$exp" "$lang" "$weights" "$jobs" "$first" "" "$@"
    for manifest in "$@"; do
        name=$(basename "$manifest" .jsonl.gz)
        source=$last # the folder of the words to adapt to
        transforms=()
        for suffix in $(adaptation_suffixes "$methods"); do
            options=()
            if [ "$suffix" = _fmllr ]; then
                transforms=(--transforms "$exp/fmllr/$name.pt")
                mkdir -p "$exp/fmllr"
                asrtool fmllr estimate "$fmllr" "$manifest" --hyps "$exp/decode/$name/$source" --out "$exp/fmllr/$name.pt"
            else
                adapted=$exp/${suffix#_}/$name
                run_ranks "$ranks" adapt "$exp" "$manifest" --hyps "$exp/decode/$name/$source" --out "$adapted" \
                    "${transforms[@]}"
                options=(--adapted "$adapted")
            fi
            decode_once "$exp" "$lang" "$weights" "$jobs" "$last" "$suffix" "$manifest" "${options[@]}" "${transforms[@]}"
            source=$last$suffix
        done
    done
}

# score_sets EXP DECODE SET...: prints the error rates of each method on each set.
score_sets() {
    local exp=$1 methods=$2 folder name folders
    shift 2
    for folder in $(result_folders "$methods"); do
        folders=()
        for name in "$@"; do folders+=("$exp/decode/$name/$folder"); done
        echo "$folder:"
        asrtool score "${folders[@]}"
    done
}

# stream_sets EXP WEIGHTS DECODE MANIFEST...: recognises the manifests of audio chunk by chunk, by each method of
# DECODE that streams, and scores the result; alignments give the delay of each word. A model that needs whole utterances
# is left out.
stream_sets() {
    local exp=$1 weights=$2 methods=$3 manifest name method alignments search options
    shift 3
    if [[ $(asrtool info "$exp/config.yaml" --vocab-size 2) =~ can\ stream\ +no ]]; then
        echo "The model of $exp needs whole utterances: nothing to do"
        return 0
    fi
    graph_options search "$exp" "$weights"
    for manifest in "$@"; do
        name=$(basename "$manifest" .jsonl.gz)
        alignments=$exp/aligned/$name.jsonl.gz
        align_manifest "$exp" "$manifest" "$alignments"
        for method in $(first_pass_methods "$methods"); do
            if [[ $method =~ ^(rescored|neural)$ ]]; then continue; fi
            options=(--method "$method" --alignments "$alignments" --precision "$precision")
            if [ "$method" = graph ]; then options+=("${search[@]}"); fi
            asrtool stream "$exp" "$manifest" --overwrite "${options[@]}"
            asrtool score "$exp/stream/$name/$method"
        done
    done
}
