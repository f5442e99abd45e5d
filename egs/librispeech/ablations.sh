#!/usr/bin/env bash
# Ablations that test the findings of the paper (arXiv 2005.09684): variants x seeds, with loss curves, a table and a
# result for each hypothesis.
#
#   bash egs/librispeech/run.sh --units phone --stop-stage 4 ...    # first: features, phones and a CTC system
#   bash egs/librispeech/ablations.sh                               # all ablations; the same command continues
#   bash egs/librispeech/ablations.sh --list true                   # lists the runs that are left, and their time
#   bash egs/librispeech/ablations.sh --only "T6 T9"
#
#   --only "T.. T.."      some of T1 to T12 (default all)
#   --scale small|full    small: an hour of speech, models of 0.3 to 5 M parameters, two to three hours on two cores
#                         (default); full: the configurations in conf/ and all of data/fbank, for 8 GPUs
#   --seeds LIST          seeds, e.g. 1,2 (default: the seeds of each ablation)
#   --from EXP            system whose alignments are the targets (default exp/transformer_small_phone_seed1 in --work)
#   --work DIR            work folder of run.sh (default this folder); the runs are written to its exp/ablations
#   --results FILE        file for the sections (default RESULTS.md in --work); pictures/ is next to it
#   --jobs N              training processes at a time (default 2)
#   --threads N           threads of each process (default 1)
#   --retry-failed true   repeat runs that failed or diverged; otherwise a failed run is a result
#   --ablations DIR       folder of the ablations' files (default ablations/)
#   --minutes N           minutes of speech to train on, equally many of each speaker (default 60); dev has a twelfth;
#                         other numbers have data and runs of their own
#   --list true           only list the runs that are left
set -euo pipefail
CDPATH="" cd -- "$(dirname "$0")"
recipe=$PWD

only="" scale=small seeds="" from=exp/transformer_small_phone_seed1 work=$recipe results="" jobs=2 threads=1
retry_failed=false ablations=$recipe/ablations minutes=60 list=false
options="only scale seeds from work results jobs threads retry_failed ablations minutes list"
path_options="work results ablations" # become absolute
. ../../local/parse_options.sh
require_choice --scale "$scale" small full
require_choice --list "$list" true false
require_choice --retry-failed "$retry_failed" true false
[[ $jobs =~ ^[1-9][0-9]*$ && $threads =~ ^[1-9][0-9]*$ ]] || option_error "--jobs and --threads are positive numbers"
[[ $minutes =~ ^[0-9]+\.?[0-9]*$ ]] || option_error "--minutes is a number, not '$minutes'"
known=$(find "$ablations" -name 'T*.yaml' -printf '%f\n' 2>/dev/null | sed 's/\.yaml$//' | sort -V | xargs) || true
[ -n "$known" ] || option_error "no ablations in '$ablations'"
files=()
for name in ${only:-$known}; do
    [[ " $known " == *" $name "* ]] || option_error "--only: there is no ablation '$name'; there are $known"
    files+=("$ablations/$name.yaml")
done
make_it="make it with run.sh --units phone --stop-stage 4 --work $work"
[ -d "$work" ] || option_error "--work $work is not a folder; $make_it"
if [ -d "$(absolute_path "$from")" ]; then from=$(absolute_path "$from"); fi
. ../../local/path.sh
. ../../local/train.sh
precision=fp32 # of alignments
cd "$work"

folder=ablations
if [ "$scale" = full ]; then folder=ablations_full; elif [ "$minutes" != 60 ]; then folder=ablations_$minutes; fi
runs=exp/$folder
results=${results:-$PWD/RESULTS.md}
command=(python3 "$ASRTOOL_ROOT/tools/ablations.py" "${files[@]}" --scale "$scale" --jobs "$jobs" --threads "$threads"
    --work "$runs" --results "$results" --pictures "$(dirname "$results")/pictures"
    --command "bash egs/librispeech/ablations.sh --only {ablation} --scale $scale")
if [ "$scale" = small ]; then
    command+=(--set "data.train=data/$folder/train.jsonl.gz" --set "data.dev=data/$folder/dev.jsonl.gz")
fi
if [ -n "$seeds" ]; then command+=(--seeds "$seeds"); fi
if [ "$retry_failed" = true ]; then command+=(--retry-failed); fi
if [ "$list" = true ]; then exec "${command[@]}" --list; fi

for file in data/fbank/{train,dev}.jsonl.gz data/lang_phone/tokenizer.json "$from/checkpoints/averaged.pt"; do
    [ -e "$file" ] || option_error "$file is missing in $PWD; $make_it"
done

# lock_data shared|exclusive: locks the training data for this script and the command that it becomes: they are not
# replaced while another ablations.sh trains on them. Without the command flock, or locks in the file system, nothing is
# locked.
exec {data_lock}<>"data/$folder.lock"
lock_data() {
    local status=0
    command -v flock >/dev/null || return 0
    flock "--$1" --timeout 5 --conflict-exit-code 75 "$data_lock" 2>/dev/null || status=$?
    if [ "$status" = 75 ]; then
        option_error "another ablations.sh uses $PWD/data/$folder: wait until it has ended, or give other --minutes"
    fi
}

lock_data shared
weights_checksum=$(cksum <"$from/checkpoints/averaged.pt")
made_from="$minutes $from $weights_checksum" # another training of --from has other alignments
if [ "$(cat "data/$folder/made_from" 2>/dev/null)" != "$made_from" ]; then
    lock_data exclusive
    rm -rf "data/$folder"
    selection=data/fbank
    if [ "$scale" = small ]; then
        selection=data/$folder/selection
        python3 "$recipe/local/choose_cuts.py" data/fbank "$selection" --minutes "$minutes"
    fi
    for name in train dev; do
        align_manifest "$from" "$selection/$name.jsonl.gz" "data/$folder/$name.jsonl.gz"
    done
    echo "$made_from" >"data/$folder/made_from"
    lock_data shared
fi
command+=(--data "$minutes minutes, alignments of ${weights_checksum% *}")
exec "${command[@]}"
