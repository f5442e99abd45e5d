#!/usr/bin/env bash
# The claims of the paper (arXiv 2005.09684) put to the test: arms x seeds, loss curves, a table and a verdict for each.
#
#   bash egs/librispeech/run.sh --units phone --stop-stage 4 ...    first: features, phones and a CTC system to align with
#   bash egs/librispeech/ablations.sh                               all claims; the same command continues
#   bash egs/librispeech/ablations.sh --list true                   what there is to do, and how long it takes
#   bash egs/librispeech/ablations.sh --only "T6 T9"
#
#   --only "T.. T.."      some of T1 to T12 (default all)
#   --scale small|full    small: an hour of speech, models of 0.3 to 5 M parameters, two to three hours on two cores
#                         (default); full: the presets of conf/ and all of data/fbank, for 8 GPUs
#   --seeds LIST          instead of those of the claims, e.g. 1,2
#   --from EXP            the system whose alignments are the targets (default exp/transformer_small_phone_seed1 there)
#   --work DIR            the work folder of run.sh (default this folder); the runs go to its exp/claims
#   --results FILE        where the sections go (default RESULTS.md there; pictures/ lies beside it)
#   --jobs N              training processes at a time, one thread each (default 2)
#   --threads N           of each instead (default 1)
#   --retry-failed true   run again what failed or diverged, which otherwise is a result
#   --claims DIR          the claims' files (default claims/)
#   --minutes N           of speech to train on (default 60), as much of each speaker; a twelfth of it is dev
#   --list true           only say what there is to do
set -euo pipefail
cd "$(dirname "$0")"

only="" scale=small seeds="" from=exp/transformer_small_phone_seed1 work=$PWD results="" jobs=2 threads=1
retry_failed=false claims=$PWD/claims minutes=60 list=false
options="only scale seeds from work results jobs threads retry_failed claims minutes list"
. ../../local/parse_options.sh
. ../../local/path.sh

stop() {
    echo "$0: error: $*" >&2
    exit 2
}
[[ $scale =~ ^(small|full)$ ]] || stop "--scale is small or full, not '$scale'"
[[ $jobs =~ ^[1-9][0-9]*$ && $threads =~ ^[1-9][0-9]*$ ]] || stop "--jobs and --threads are numbers of processes and threads"
[[ $minutes =~ ^[0-9]+\.?[0-9]*$ ]] || stop "--minutes is a number, not '$minutes'"
[[ $list =~ ^(true|false)$ && $retry_failed =~ ^(true|false)$ ]] || stop "--list and --retry-failed are true or false"
claims=$(located "$claims")
known=$(cd "$claims" 2>/dev/null && ls T*.yaml 2>/dev/null | sed 's/\.yaml$//' | sort -V) || stop "no claims in '$claims'"
files=()
for claim in ${only:-$known}; do
    [[ " "$(echo $known)" " == *" $claim "* ]] || stop "--only: there is no claim '$claim'; there are" $known
    files+=("$claims/$claim.yaml")
done
recipe=$PWD
if [ -n "$results" ]; then results=$(located "$results"); fi
work=$(located "$work")
[ -d "$work" ] || stop "--work $work is no folder; make it with run.sh --units phone --stop-stage 4 --work $work"
if [ -d "$(located "$from")" ]; then from=$(located "$from"); fi
cd "$work"
: "${results:=$PWD/RESULTS.md}"

arms=(python3 "$ASRTOOL_ROOT/tools/arms.py" "${files[@]}" --scale "$scale" --jobs "$jobs" --threads "$threads")
folder=exp/claims
if [ "$scale" = full ]; then folder+=_full; elif [ "$minutes" != 60 ]; then folder+=_$minutes; fi # other data
arms+=(--work "$folder" --results "$results" --pictures "$(dirname "$results")/pictures")
arms+=(--command "bash egs/librispeech/ablations.sh --only {claim} --scale $scale")
if [ -n "$seeds" ]; then arms+=(--seeds "$seeds"); fi
if [ "$retry_failed" = true ]; then arms+=(--retry-failed); fi
if [ "$list" = true ]; then exec "${arms[@]}" --list; fi

for made in data/fbank/{train,dev}.jsonl.gz data/lang_phone/tokenizer.json "$from/checkpoints/averaged.pt"; do
    [ -e "$made" ] || stop "$made is missing in $PWD; make it with run.sh --units phone --stop-stage 4 --work $PWD"
done
data=data/claims chosen=data/claims/chosen
if [ "$scale" = full ]; then data=data/claims_full chosen=data/fbank; fi
if [ "$(cat "$data/made_of" 2>/dev/null)" != "$minutes $from" ]; then
    rm -rf "$data"
    if [ "$scale" = small ]; then
        python3 "$recipe/local/choose_cuts.py" data/fbank "$chosen" --minutes "$minutes"
    fi
    for name in train dev; do
        asrtool align "$from" "$chosen/$name.jsonl.gz" "$data/$name.jsonl.gz" || [ $? = 1 ] # 1: some cuts cannot be
    done
    echo "$minutes $from" >"$data/made_of"
fi
exec "${arms[@]}"
