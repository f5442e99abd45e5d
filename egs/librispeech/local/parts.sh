#!/usr/bin/env bash
# Sourced by run.sh: which parts of LibriSpeech there are, and a manifest from some of them.

# Fill in train_parts, dev_parts and test_parts from what $corpus_dir holds, where the user did not choose.
find_parts() {
    if [ -d "$corpus_dir/LibriSpeech" ]; then corpus_dir=$corpus_dir/LibriSpeech; fi
    [ -d "$corpus_dir" ] || stages_stop "no such folder: $corpus_dir; give --corpus-dir, the folder of the parts"
    : "${train_parts:=$(parts_named train)}" "${dev_parts:=$(parts_named dev)}" "${test_parts:=$(parts_named test)}"
    [ -n "$train_parts" ] || stages_stop "no train-* folder in $corpus_dir; give --train-parts"
    [ -n "$dev_parts$dev_speakers" ] || stages_stop "no dev-* folder in $corpus_dir; give --dev-parts or --dev-speakers"
}

parts_named() {
    find -L "$corpus_dir" -mindepth 1 -maxdepth 1 -type d -name "$1-*" -printf '%f\n' | sort | paste -sd' '
}

# prepare_set NAME "PART PART" [OPTIONS]: data/NAME.jsonl.gz
prepare_set() {
    local name=$1 parts=() part
    for part in $2; do parts+=(--part "$part"); done
    asrtool prepare librispeech "$corpus_dir" "data/$name.jsonl.gz" "${parts[@]}" "${@:3}"
}
