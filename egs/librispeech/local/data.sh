#!/usr/bin/env bash
# Writes the manifests of LibriSpeech, data/train.jsonl.gz, data/dev.jsonl.gz and one for each test set; the names of the
# sets to score, data/scored_sets; and of which parts training set and dev set are, data/parts. It runs in the work
# folder; run.sh passes its own options of the same names.
#
#   --corpus-dir DIR            folder of the parts, or the folder above it (default: download the parts)
#   --mirror URL                OpenSLR's resources
#   --parts "P P"               the parts to use: mini, 100h, 960h or names (default mini, or all parts of --corpus-dir)
#   --train-parts, --dev-parts, --test-parts "P P"      of these, the parts of each set (default train-*, dev-*, test-*)
#   --dev-speakers, --test-speakers LIST                speakers of the training parts for the dev set and a test set
set -euo pipefail

corpus_dir="" mirror="" parts="" train_parts="" dev_parts="" test_parts="" dev_speakers="" test_speakers=""
options="corpus_dir mirror parts train_parts dev_parts test_parts dev_speakers test_speakers"
. "$ASRTOOL_ROOT/local/parse_options.sh"

# select_parts PARTS CORPUS_DIR PREFIX: prints the PARTS whose names begin with PREFIX or, if PARTS is "", the folders in
# CORPUS_DIR.
select_parts() {
    local parts=$1 corpus_dir=$2 prefix=$3
    if [ -n "$parts" ]; then
        printf '%s\n' $parts | grep "^$prefix" || true
    else
        find -L "$corpus_dir" -mindepth 1 -maxdepth 1 -type d -name "$prefix*" -printf '%f\n' | sort
    fi | paste -sd' '
}

# join_speakers LIST...: prints the speakers of all LISTs, comma-separated. A LIST is comma-separated or a file.
join_speakers() {
    local list
    for list in "$@"; do
        if [ -f "$list" ]; then cat "$list"; else echo "${list//,/ }"; fi
    done | tr -d '\r' | xargs | tr ' ' ,
}

# every_nth_speaker K/N EXCLUDED FOLDER...: prints every N-th speaker in FOLDERs from the K-th on, but none of EXCLUDED.
every_nth_speaker() {
    local k=${1%/*} n=${1#*/} excluded=$2 folder
    shift 2
    for folder in "$@"; do find -L "$folder" -mindepth 1 -maxdepth 1 -type d -printf '%f\n'; done |
        { grep -vxF "${excluded//,/$'\n'}" || true; } | sort -n | awk -v k="$k" -v n="$n" 'NR % n == k % n'
}

# check_fold K/N: exits with an error unless K is from 1 to N, and N 2 or more.
check_fold() {
    local k=${1%/*} n=${1#*/}
    if [[ ! $1 =~ ^[0-9]{1,9}/[0-9]{1,9}$ ]] || [ "$k" -lt 1 ] || [ "$k" -gt "$n" ] || [ "$n" -lt 2 ]; then
        option_error "--test-speakers $1: K/N is every N-th speaker from the K-th on, with K from 1 to N, such as 1/4"
    fi
}

# prepare_set CORPUS_DIR NAME "PART PART" OPTION...: writes data/NAME.jsonl.gz.
prepare_set() {
    local corpus_dir=$1 name=$2 part part_options=()
    for part in $3; do part_options+=(--part "$part"); done
    asrtool prepare librispeech "$corpus_dir" "data/$name.jsonl.gz" "${part_options[@]}" "${@:4}"
}

scored="dev-clean dev-other test-clean test-other"
case $parts in
mini) parts="train-clean-5 dev-clean-2" ;;
100h) parts="train-clean-100 $scored" ;;
960h) parts="train-clean-100 train-clean-360 train-other-500 $scored" ;;
"") if [ -z "$corpus_dir" ]; then parts="train-clean-5 dev-clean-2"; fi ;;
esac
if [ -z "$corpus_dir" ]; then
    python3 "$ASRTOOL_ROOT/local/download.py" download $parts --inside LibriSpeech --url "$mirror" \
        --sums "$recipe/local/md5sum.txt"
    corpus_dir=download/LibriSpeech
fi
if [ -d "$corpus_dir/LibriSpeech" ]; then corpus_dir=$corpus_dir/LibriSpeech; fi
[ -d "$corpus_dir" ] || option_error "no such folder: $corpus_dir; give --corpus-dir, the folder of the parts"
for part in $parts; do
    [ -d "$corpus_dir/$part" ] ||
        option_error "no part $part in $corpus_dir, which has: $(select_parts "" "$corpus_dir" ""); see --parts"
done
: "${train_parts:=$(select_parts "$parts" "$corpus_dir" train-)}"
: "${dev_parts:=$(select_parts "$parts" "$corpus_dir" dev-)}"
: "${test_parts:=$(select_parts "$parts" "$corpus_dir" test-)}"
[ -n "$train_parts" ] || option_error "no train-* folder in $corpus_dir; give --train-parts"
[ -n "$dev_parts$dev_speakers" ] || option_error "no dev-* folder in $corpus_dir; give --dev-parts or --dev-speakers"

dev_speakers=$(join_speakers "$dev_speakers") # as one list, if it is a file
if [[ $test_speakers =~ ^[0-9]+/[0-9]+$ ]]; then
    check_fold "$test_speakers"
    fold=$test_speakers
    folders=()
    for part in $train_parts; do folders+=("$corpus_dir/$part"); done
    test_speakers=$(every_nth_speaker "$fold" "$dev_speakers" "${folders[@]}")
    [ -n "$test_speakers" ] || option_error "--test-speakers $fold: $train_parts have fewer speakers than ${fold%/*}"
fi
test_speakers=$(join_speakers "$test_speakers")
both=$(comm -12 <(tr , '\n' <<<"$dev_speakers" | sort) <(tr , '\n' <<<"$test_speakers" | sort) | xargs)
[ -z "$both" ] || option_error "--dev-speakers and --test-speakers both have $both: choose one set for each speaker"
rm -f data/*.jsonl.gz data/fbank/*.jsonl.gz # the sets of earlier options
held_out=$(join_speakers "$dev_speakers" "$test_speakers")
prepare_set "$corpus_dir" train "$train_parts" ${held_out:+--exclude-speakers "$held_out"}
if [ -n "$dev_speakers" ]; then
    prepare_set "$corpus_dir" dev "$train_parts" --speakers "$dev_speakers"
else
    prepare_set "$corpus_dir" dev "$dev_parts"
fi
if [ -n "$test_speakers" ]; then prepare_set "$corpus_dir" held_out "$train_parts" --speakers "$test_speakers"; fi
for part in $test_parts; do prepare_set "$corpus_dir" "$part" "$part"; done
echo dev ${test_speakers:+held_out} $test_parts >data/scored_sets
if [ -n "$dev_speakers" ]; then dev_parts="speakers of $train_parts"; fi
echo "$train_parts, $dev_parts" >data/parts
