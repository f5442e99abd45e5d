#!/usr/bin/env bash
# Sourced by run.sh: stage 0, and all that is particular to this corpus. It leaves data/train.jsonl.gz, data/dev.jsonl.gz,
# test sets of any names, all with transcripts in upper case, and in data/scored_sets the names of the sets to score.
# A recipe for another corpus is a copy of this folder with another data_stage; options that are not its own stay "".

scored="dev-clean dev-other test-clean test-other"
case $parts in
mini) parts="train-clean-5 dev-clean-2" ;;
100h) parts="train-clean-100 $scored" ;;
960h) parts="train-clean-100 train-clean-360 train-other-500 $scored" ;;
"") if [ -z "$corpus_dir" ]; then parts="train-clean-5 dev-clean-2"; fi ;;
esac

data_stage() {
    begin 0 data "manifests of ${corpus_dir:-a download of $parts}" . \
        "$corpus_dir" "$parts" "$train_parts" "$dev_parts" "$dev_speakers" "$test_speakers" "$test_parts" || return 0
    if [ -z "$corpus_dir" ]; then
        corpus_dir=download/LibriSpeech
        python3 "$ASRTOOL_ROOT/local/download.py" download $parts --inside LibriSpeech \
            --url "$mirror" --sums "$here/local/md5sum.txt"
    fi
    find_parts
    rm -f data/*.jsonl.gz data/fbank/*.jsonl.gz # the sets of another choice of parts
    if [[ $test_speakers =~ ^[0-9]+/[0-9]+$ ]]; then test_speakers=$(speakers_of_fold); fi
    away=$(names "$dev_speakers" "$test_speakers")
    prepare_set train "$train_parts" ${away:+--exclude-speakers "$away"}
    if [ -n "$dev_speakers" ]; then
        prepare_set dev "$train_parts" --speakers "$dev_speakers"
    else
        prepare_set dev "$dev_parts"
    fi
    if [ -n "$test_speakers" ]; then prepare_set held_out "$train_parts" --speakers "$test_speakers"; fi
    for part in $test_parts; do prepare_set "$part" "$part"; done
    echo dev ${test_speakers:+held_out} $test_parts >data/scored_sets
    if [ -n "$lm" ]; then find_lm; fi # while there is a network
    finish "data/{train,dev,held_out,test-*}.jsonl.gz"
}

# The speakers of --test-speakers K/N
speakers_of_fold() {
    for part in $train_parts; do find -L "$corpus_dir/$part" -mindepth 1 -maxdepth 1 -type d -printf '%f\n'; done |
        grep -vxF "$(names "$dev_speakers" | tr , '\n')" | sort -n |
        awk -v k="${test_speakers%/*}" -v n="${test_speakers#*/}" 'NR % n == k % n'
}

# The speakers of some lists, each comma-separated or a file, as one list
names() {
    local list
    for list in "$@"; do
        if [ -f "$list" ]; then cat "$list"; else echo "${list//,/ }"; fi
    done | xargs | tr ' ' ,
}

# Fill in train_parts, dev_parts and test_parts from $parts, or from what $corpus_dir holds, where the user did not choose.
find_parts() {
    local part
    if [ -d "$corpus_dir/LibriSpeech" ]; then corpus_dir=$corpus_dir/LibriSpeech; fi
    [ -d "$corpus_dir" ] || stages_stop "no such folder: $corpus_dir; give --corpus-dir, the folder of the parts"
    for part in $parts; do
        [ -d "$corpus_dir/$part" ] || stages_stop "no part $part in $corpus_dir, which has: $(parts_named ""); see --parts"
    done
    : "${train_parts:=$(parts_named train-)}" "${dev_parts:=$(parts_named dev-)}" "${test_parts:=$(parts_named test-)}"
    [ -n "$train_parts" ] || stages_stop "no train-* folder in $corpus_dir; give --train-parts"
    [ -n "$dev_parts$dev_speakers" ] || stages_stop "no dev-* folder in $corpus_dir; give --dev-parts or --dev-speakers"
}

# Those of $parts, or of the folders there are, whose names begin with $1
parts_named() {
    if [ -n "$parts" ] && [ -n "$1" ]; then
        printf '%s\n' $parts | grep "^$1" || true
    else
        find -L "$corpus_dir" -mindepth 1 -maxdepth 1 -type d -name "$1*" -printf '%f\n' | sort
    fi | paste -sd' '
}

# prepare_set NAME "PART PART" [OPTIONS]: data/NAME.jsonl.gz
prepare_set() {
    local name=$1 parts=() part
    for part in $2; do parts+=(--part "$part"); done
    asrtool prepare librispeech "$corpus_dir" "data/$name.jsonl.gz" "${parts[@]}" "${@:3}"
}
