#!/usr/bin/env bash
# Source this after stages.sh: stages 3 and 4, the same in every recipe.
#
#   train_stages conf/x.yaml exp/x_seed1 [what stage 4 trains on, for its first line]
#
# Options of the recipe that it uses:
#   --warmup-hours H   audio to train on with one machine before the training proper; 0: no warmup
#   --ranks N          processes on this machine, one a GPU
#   --launcher CMD     starts stage 4 instead, e.g. on all machines: "srun -N 4 torchrun --nnodes 4 ..."
#   --seed N
#
# Stage 4 begins with the weights that stage 3 leaves. Both go on where they were interrupted.

: "${warmup_hours:=0}" "${ranks:=1}" "${launcher:=}"
[[ $warmup_hours =~ ^[0-9]+\.?[0-9]*$ ]] || stages_stop "--warmup-hours is a number, not '$warmup_hours'"
[[ $ranks =~ ^[1-9][0-9]*$ ]] || stages_stop "--ranks is a number of processes, not '$ranks'"

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

train_stages() {
    local conf=$1 exp=$2 name from=()
    name="$(basename "$conf"), seed $seed"
    if [[ $warmup_hours =~ [1-9] ]]; then
        from=(--init-from "$exp/warmup/checkpoints/warmup.pt")
        if begin 3 warmup "$warmup_hours h of audio on one machine: $name" . "$conf" "$seed" "$warmup_hours"; then
            on_this_machine train "$conf" --exp "$exp/warmup" --set seed="$seed" --resume \
                --phase warmup --warmup-hours "$warmup_hours"
            finish "${from[1]}"
        fi
    fi
    if begin 4 train "CTC training of $name${from:+, begun from the warmup}" . "$conf" "$seed"; then
        on_all_machines train "$conf" --exp "$exp" --set seed="$seed" --resume "${from[@]}"
        finish "$exp/checkpoints/averaged.pt and $exp/loss.png"
    fi
}
