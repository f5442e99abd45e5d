#!/usr/bin/env bash
# Source this after parse_options.sh. It defines what stages 3 and 4 of the recipes share: names of folders, and how
# `asrtool train` is started.

# check_training_options OBJECTIVE FROM WARMUP_HOURS RANKS CONF: exits with an error if one of these options is wrong.
check_training_options() {
    local objective=$1 from=$2 warmup_hours=$3 ranks=$4 conf=$5
    require_choice --objective "$objective" ctc mmi ce
    if [ -n "$from" ] && [ "$objective" = ctc ]; then
        option_error "--from is for --objective mmi and ce; ctc starts from random weights"
    fi
    if [ "$from" = none ] && [ "$objective" != mmi ]; then
        option_error "--from none is for --objective mmi; ce needs the alignments of a system"
    fi
    [[ $warmup_hours =~ ^[0-9]+\.?[0-9]*$ ]] || option_error "--warmup-hours is a number, not '$warmup_hours'"
    if [ -n "$from" ] && [ "$from" != none ]; then check_starting_system "$from" "$warmup_hours"; fi
    [[ $ranks =~ ^[1-9][0-9]{0,8}$ ]] || option_error "--ranks is a number of processes, not '$ranks'"
    [ -f "$conf" ] || option_error "--conf: no such file: $conf"
}

# check_starting_system FROM WARMUP_HOURS: exits with an error if stage 4 will run, and FROM is not a trained system; or
# if a warmup would come before a training that starts from the weights of FROM.
check_starting_system() {
    local from=$1 warmup_hours=$2
    if [[ $warmup_hours =~ [1-9] ]]; then
        option_error "--warmup-hours is for a training from random weights, and --from names a trained system"
    fi
    if [ "$stages_list" = true ] || [ "$stages_first" -gt 4 ] || [ "$stages_last" -lt 4 ]; then return 0; fi
    [ -f "$(weights_of "$from")" ] ||
        option_error "--from: no trained system in $from; give an experiment with checkpoints/averaged.pt, or a pack"
}

# weights_of SYSTEM: prints the path of the weights of an experiment or a pack.
weights_of() {
    if [ -f "$1/model.json" ]; then echo "$1/model.safetensors"; else echo "$1/checkpoints/averaged.pt"; fi
}

# lang_folder UNITS DEFAULT_UNITS TOPOLOGY: prints the folder of the units, lexicon and graph; its name has UNITS unless
# they are the recipe's default, and TOPOLOGY unless it is ctc.
lang_folder() {
    local units=$1 default_units=$2 topology=$3 name=data/lang
    if [ "$units" != "$default_units" ]; then name+=_$units; fi
    if [ "$topology" != ctc ]; then name+=_$topology; fi
    echo "$name"
}

# experiment_folder CONF UNITS DEFAULT_UNITS OBJECTIVE SEED [TAG]: prints the folder of a training, e.g.
# exp/transformer_12l_small_phone_mmi_seed1 for conf/small/transformer_12l.yaml. A TAG is its ending.
experiment_folder() {
    local conf=$1 units=$2 default_units=$3 objective=$4 seed=$5 tag=${6:-} name
    name=$(basename "$conf" .yaml)
    if [[ $conf == */conf/small/* ]]; then name+=_small; fi
    if [ "$units" != "$default_units" ]; then name+=_$units; fi
    if [ "$objective" != ctc ]; then name+=_$objective; fi
    echo "exp/${name}_seed$seed${tag:+_$tag}"
}

# starting_system FROM CONF UNITS DEFAULT_UNITS OBJECTIVE SEED [TAG]: prints the folder of the system that mmi and ce start
# from: FROM or, if that is "", the CTC system of the same options. mmi starts from its weights; its alignments are the
# targets of ce. For ctc, and for mmi with `--from none`, it is the experiment itself.
starting_system() {
    local from=$1 conf=$2 units=$3 default_units=$4 objective=$5 seed=$6 tag=${7:-}
    if [ -n "$from" ] && [ "$from" != none ]; then
        echo "$from"
    elif [ "$from" = none ]; then
        experiment_folder "$conf" "$units" "$default_units" "$objective" "$seed" "$tag"
    else
        experiment_folder "$conf" "$units" "$default_units" ctc "$seed" "$tag"
    fi
}

# final_config CONF OBJECTIVE: prints the configuration of the training with mmi or ce that follows CTC. If CONF is
# NAME.yaml, it is NAME_mmi.yaml (or NAME_ce.yaml) next to it, or CONF itself if there is no such file.
final_config() {
    local config=${1%.yaml}_$2.yaml
    if [ -f "$config" ]; then echo "$config"; else echo "$1"; fi
}

# output_layer_options FROM TOPOLOGY: prints --new-output if the system that --from names has another number of outputs
# for each unit than TOPOLOGY: one, or two with hmm. Without --from it has the same.
output_layer_options() {
    local from=$1 topology=$2 other
    if [ -z "$from" ]; then return 0; fi
    other=$(python3 "$driver/config_values.py" "$from/config.yaml" objective.topology)
    if [ "${other/modified/ctc}" != "$topology" ]; then echo --new-output; fi
}

# run_ranks RANKS COMMAND...: runs `asrtool COMMAND...` in RANKS processes on this machine.
run_ranks() {
    local ranks=$1
    shift
    if [ "$ranks" = 1 ]; then
        asrtool "$@"
    else
        python3 -m torch.distributed.run --standalone --nproc-per-node "$ranks" --max-restarts 3 -m asrtool "$@"
    fi
}

# run_machines LAUNCHER RANKS COMMAND...: runs `asrtool COMMAND...` by LAUNCHER, which may start it on several machines,
# e.g. "srun -N 4 torchrun --nnodes 4 ..."; if LAUNCHER is "", in RANKS processes on this machine.
run_machines() {
    local launcher=$1 ranks=$2
    shift 2
    if [ -n "$launcher" ]; then $launcher -m asrtool "$@"; else run_ranks "$ranks" "$@"; fi
}

# align_manifest SYSTEM MANIFEST OUT: writes MANIFEST with alignments by SYSTEM to OUT, without the cuts that cannot be
# aligned: then asrtool lists them and returns 1.
align_manifest() {
    local status=0
    rm -f "$3"
    asrtool align "$@" --precision "$precision" || status=$?
    if [ "$status" != 1 ] || [ ! -f "$3" ]; then return "$status"; fi
}

# align_once SYSTEM FOLDER FINGERPRINT MANIFEST OUT [MANIFEST OUT]...: writes each MANIFEST with alignments by SYSTEM to
# OUT in FOLDER, only once, so that an interrupted training continues with the same alignments. If another FINGERPRINT,
# $precision or weights of SYSTEM show that FOLDER holds the alignments of other data or of another system, they are
# replaced.
align_once() {
    local system=$1 folder=$2 fingerprint="$3 $precision" system_weights
    shift 3
    system_weights=$(weights_of "$system")
    if [ -f "$system_weights" ]; then fingerprint+=" $(cksum <"$system_weights")"; fi
    if [ "$(cat "$folder/fingerprint" 2>/dev/null)" != "$fingerprint" ]; then
        rm -rf "$folder"
        mkdir -p "$folder"
        echo "$fingerprint" >"$folder/fingerprint"
    fi
    while [ $# -gt 0 ]; do
        if [ ! -f "$2" ]; then align_manifest "$system" "$1" "$2"; fi
        shift 2
    done
}

# build_once FILE SETTINGS COMMAND...: runs COMMAND, which writes FILE, unless it did so with the same SETTINGS. Of
# several recipes in one work folder, the others wait for the one that writes FILE.
build_once() {
    local file=$1 settings=$2 record=.done/${1//\//_} lock
    shift 2
    mkdir -p .done
    exec {lock}<>"$record.lock"
    if command -v flock >/dev/null; then flock "$lock" || true; fi
    if [ ! -f "$file" ] || [ "$(cat "$record" 2>/dev/null)" != "$settings" ]; then
        rm -f "$record"
        "$@"
        printf '%s\n' "$settings" >"$record"
    fi
    exec {lock}>&-
}
