#!/usr/bin/env bash
# Source this after stages.sh: stages 3 and 4, the same in every recipe.
#
#   name_experiment USUAL       sets $exp and $lang: the folders of a training and of its units, which they name
#                               unless they are the usual ones
#   train_stages TRAIN DEV      trains $exp with the units of $lang on these manifests
#
# Options of the recipe that it uses:
#   --conf FILE --seed N --units NAME
#   --objective ctc|mmi|ce  what the training minimises; ce and mmi start from another system, a CTC one as a rule
#   --from EXP         that system; its weights are mmi's first ones, its alignments are ce's targets. By default the
#                      one that --objective ctc makes with the same options, which stage 4 trains if it is not there;
#                      none: mmi from nothing. Where there is conf/NAME_mmi.yaml (_ce) beside --conf conf/NAME.yaml,
#                      it is what mmi (ce) trains with, e.g. at another rate
#   --warmup-hours H   audio to train on with one machine before the training proper; 0: no warmup
#   --ranks N          processes on this machine, one a GPU
#   --launcher CMD     starts stage 4 instead, e.g. on all machines: "srun -N 4 torchrun --nnodes 4 ..."
#
# Stage 4 begins with the weights that stage 3 leaves. Both go on where they were interrupted.

: "${objective:=ctc}" "${from:=}" "${warmup_hours:=0}" "${ranks:=1}" "${launcher:=}"
[[ $objective =~ ^(ctc|mmi|ce)$ ]] || stages_stop "--objective is ctc, mmi or ce, not '$objective'"
[ -z "$from" ] || [ "$objective" != ctc ] || stages_stop "--from is for --objective mmi and ce; ctc starts from nothing"
[[ $warmup_hours =~ ^[0-9]+\.?[0-9]*$ ]] || stages_stop "--warmup-hours is a number, not '$warmup_hours'"
[[ $ranks =~ ^[1-9][0-9]*$ ]] || stages_stop "--ranks is a number of processes, not '$ranks'"
[ "$from" != none ] || [ "$objective" = mmi ] || stages_stop "--from none is for --objective mmi; ce needs alignments"
if [ -n "$from" ] && [ "$from" != none ]; then from=$(located "$from"); fi
conf=$(located "$conf")
[ -f "$conf" ] || stages_stop "--conf: no such file: $conf"

on_this_machine() {
    if [ "$ranks" = 1 ]; then
        asrtool "$@"
    else
        python3 -m torch.distributed.run --standalone --nproc-per-node "$ranks" --max-restarts 3 -m asrtool "$@"
    fi
}

on_all_machines() {
    if [ -n "$launcher" ]; then $launcher -m asrtool "$@"; else on_this_machine "$@"; fi
}

name_experiment() {
    local suffix="" system
    if [ "$units" != "$1" ]; then suffix=_$units; fi
    lang=data/lang$suffix
    system=exp/$(basename "$conf" .yaml)$suffix
    exp=${system}_seed$seed
    if [ "$objective" != ctc ]; then
        : "${from:=$exp}"
        exp=${system}_${objective}_seed$seed
    fi
}

train_stages() {
    local train=$1 dev=$2 set=(--set seed="$seed" --set data.tokenizer="$lang/tokenizer.json") name first warm=()
    local last=${conf%.yaml}_$objective.yaml
    [ -f "$last" ] || last=$conf
    name="$(basename "$conf"), seed $seed"
    first=${from:-$exp}
    if [ "$from" = none ]; then first=$exp set+=(--set objective.kind=mmi); fi
    if [[ $warmup_hours =~ [1-9] ]]; then
        warm=(--init-from "$first/warmup/checkpoints/warmup.pt")
        if begin 3 warmup "$warmup_hours h of audio on one machine: $name" . "$conf" "$seed" "$warmup_hours"; then
            on_this_machine train "$conf" --exp "$first/warmup" "${set[@]}" --resume \
                --phase warmup --warmup-hours "$warmup_hours"
            finish "${warm[1]}"
        fi
    fi
    name="$(basename "$last"), seed $seed${from:+, from $from}${warm:+, begun from the warmup}"
    if begin 4 train "${objective^^} training of $name" . "$conf" "$last" "$seed" "$objective" "from $from"; then
        if [ ! -f "$first/checkpoints/averaged.pt" ] || [ "$first" = "$exp" ]; then
            on_all_machines train "$conf" --exp "$first" "${set[@]}" --resume "${warm[@]}"
        fi
        if [ "$first" != "$exp" ]; then "train_$objective"; fi
        finish "$exp/checkpoints/averaged.pt and $exp/loss.png"
    fi
}

train_mmi() {
    on_all_machines train "$last" --exp "$exp" "${set[@]}" --resume --set objective.kind=mmi \
        --init-from "$first/checkpoints/averaged.pt"
}

train_ce() {
    aligned=data/aligned/$(basename "$exp")
    if [ "$(cat "$aligned/made_of" 2>/dev/null)" != "$history" ]; then # of other data, or by another system
        rm -rf "$aligned"
        mkdir -p "$aligned"
        echo "$history" >"$aligned/made_of"
    fi
    align_once "$train"
    align_once "$dev"
    on_all_machines train "$last" --exp "$exp" "${set[@]}" --resume --set objective.kind=ce \
        --set data.train="$aligned/$(basename "$train")" --set data.dev="$aligned/$(basename "$dev")"
}

# The manifest $1 with alignments by $first, in $aligned; an interrupted training finds it there.
align_once() {
    [ -f "$aligned/$(basename "$1")" ] || asrtool align "$first" "$1" "$aligned/$(basename "$1")"
}
