#!/usr/bin/env bash
# Source this after parse_options.sh. A stage of a recipe is
#
#   if begin 1 features "80-bin log-mel" "$work" "$num_bins"; then
#       ...
#       finish "what was made"
#   fi
#
# It runs when --stage <= 1 <= --stop-stage, unless its marker in $work/.done says that it was done with the same
# settings (the further arguments: values, or files, which count by content) after the same stages; --force true runs
# it all the same. A stage that fails or is interrupted leaves no marker, so the next call takes it up again.

: "${force:=false}"

stages_stop() {
    trap - EXIT # it says all there is to say
    echo "$0: error: $*" >&2
    exit 2
}

for number in "$stage" "$stop_stage"; do
    [[ $number =~ ^[0-8]$ ]] || stages_stop "stage '$number' is not a number from 0 to 8 (see $0 --help)"
done
[ "$stage" -le "$stop_stage" ] || stages_stop "--stage $stage is after --stop-stage $stop_stage"
[[ $force =~ ^(true|false)$ ]] || stages_stop "--force is true or false, not '$force'"

trap 'echo "$0: interrupted; the same command continues here" >&2; exit 130' INT TERM
trap 'status=$?; [ $status = 0 ] || echo "$0: stopped with exit status $status${current:+ in stage $current}" >&2' EXIT

history="" # of the stages so far: a stage is unchanged only when all before it are
current=""

# A file and, if it is a configuration, the files that its `base` names.
content() {
    local base
    cat "$1"
    [[ $1 == *.yaml ]] || return 0
    for base in $(sed -n 's/^base: *\[\{0,1\}\([^]#]*\).*/\1/p' "$1" | tr ',' ' '); do
        content "$(dirname "$1")/$base"
    done
}

begin() {
    local number=$1 name=$2 text=$3 work=$4 setting after
    shift 4
    current="$number ($name)"
    marker=$work/.done/$number-$name
    for setting in "$@"; do
        if [ -f "$setting" ]; then setting=$(content "$setting" | cksum); fi
        history+="|$setting"
    done
    history=$(echo "$history|$number" | cksum)
    [ "$stage" -le "$number" ] && [ "$number" -le "$stop_stage" ] || return 1
    if [ "$force" = false ] && [ -f "$marker" ] && [ "$(head -n 1 "$marker")" = "$history" ]; then
        echo "stage $number ($name): done already and unchanged${marker:+; $(sed -n 2p "$marker")}"
        return 1
    fi
    for ((after = number; after <= 8; after++)); do rm -f "$work/.done/$after"-*; done # they rest on this one
    started=$SECONDS
    echo "stage $number ($name): $text"
}

finish() {
    mkdir -p "$(dirname "$marker")"
    printf '%s\n%s\n' "$history" "$*" >"$marker.tmp"
    mv "$marker.tmp" "$marker"
    echo "stage $current: made $* ($((SECONDS - started)) s)"
    current=""
}
