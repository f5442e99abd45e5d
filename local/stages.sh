#!/usr/bin/env bash
# Source this after parse_options.sh. A stage of a recipe is
#
#   if begin 1 features "80-bin log-mel" "$work" "$num_bins"; then
#       ...
#       finish "what was made"
#   fi
#
# It runs when --stage <= 1 <= --stop-stage, unless its marker in $work/.done says that it was done with the same
# settings (the further arguments) after the same stages; --force true runs it all the same. A setting is a value, or a
# file, which counts by its content, or the absolute path of a folder, such as a corpus, which counts by its path and its
# content: a changed transcript, or another recording, is another setting. A relative path of a folder is a value: it is
# something that the recipe itself makes. A stage that fails or is interrupted leaves no marker, so the next call takes
# it up again.

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

# The files that the `base` of the configuration $1 names, one a line: a name, a list in brackets, or one of lines.
bases() {
    awk '/^base:/ { sub(/^base:/, ""); listed = 1; print; next } /^[^-[:space:]#]/ { listed = 0 } listed' "$1" |
        sed 's/\(^\|[[:space:]]\)#.*//; s/^[[:space:]]*-[[:space:]]//' | tr -d "[]\"'" | tr , '\n' |
        sed 's/^[[:space:]]*//; s/[[:space:]]*$//; /^$/d'
}

# The file $1 and, if it is a configuration, the files that its `base` names, each once.
file_content() {
    local base path
    path=$(realpath -m -- "$1")
    if [[ $visited == *"|$path|"* ]] || [ ! -f "$path" ]; then return 0; fi # asrtool says what is wrong with them
    visited+="|$path|"
    cat -- "$path"
    if [[ $path == *.yaml ]]; then
        while IFS= read -r base; do file_content "$(dirname "$path")/$base"; done < <(bases "$path")
    fi
}

# What lies in the folder $1: the checksum of each file; of audio and of files of 64 MB or more, which take long to read,
# the size and the time of the last change. Hidden files do not count, nor does what the recipe itself makes.
folder_content() {
    local own files small path
    own=(-name ".*")
    for path in exp data/fbank data/aligned "data/lang*" "data/claims*" data/scored_sets "data/*.jsonl.gz"; do
        own+=(-o -path "$(realpath "$work")/$path")
    done
    files=(find -L "$1" -mindepth 1 "(" "${own[@]}" ")" -prune -o -type f)
    small=(-size -64M -not -iregex '.*[.]\(wav\|flac\|mp3\|ogg\|opus\|m4a\|aac\|sph\|aif\|aiff\)')
    "${files[@]}" "${small[@]}" -print0 | LC_ALL=C sort -z | xargs -0r cksum
    "${files[@]}" -not "(" "${small[@]}" ")" -printf '%p %s %T@\n' | LC_ALL=C sort
}

# What the setting $1 is recognised by.
identity() {
    local visited=""
    if [ -f "$1" ]; then
        file_content "$1" | cksum
    elif [[ $1 == /* && -d $1 ]]; then
        printf '%s %s\n' "$1" "$(folder_content "$1" | cksum)"
    else
        printf '%s\n' "$1"
    fi
}

begin() {
    local number=$1 name=$2 text=$3 work=$4 setting after
    shift 4
    current="$number ($name)"
    marker=$work/.done/$number-$name
    for setting in "$@"; do
        history+="|$(identity "$setting")"
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
