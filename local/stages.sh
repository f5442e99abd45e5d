#!/usr/bin/env bash
# Source this after parse_options.sh. It defines the stages of a recipe, which run in the work folder:
#
#   setup_stages "$stage" "$stop_stage" "$force"    # options of the recipe: which stages to run
#   cd "$work"
#   if begin_stage 1 "compute features" "$speeds"; then
#       asrtool features ...
#       finish_stage "data/fbank/*.jsonl.gz"        # what the stage wrote
#   fi
#
# Stage N runs if it is between --stage and --stop-stage, unless its marker shows that it was completed with the same
# settings, after the same runs of the earlier stages; `--force true` runs it again. A stage that fails or is
# interrupted leaves no marker, so that the next call repeats it. The settings of a stage are the arguments after its
# title. Its commands do not count: use --force after an edit of them. While a stage runs, and after it has failed,
# the file `running` beside its marker names it. With `--list true` no stage runs: the files and folders among the
# settings of each are printed, and its state.
#
# The markers are in .done/, .done/lang_UNITS/ and .done/EXPERIMENT/ (see marker_of), so that a work folder may have
# systems of several units, seeds and models. The lines of a marker are the checksum of the settings; what the stage
# wrote; when it was completed, which the checksum of the next stage includes; and the checksum, size and path of each
# file that the stage named by `stage_reads`: the weights of a system that it starts from. If such a file changes, the
# stage runs again; if it is removed, the stage remains done.
#
#   a file               counts by its content, together with the files that a configuration names as its `base`; a
#                        file of 64 MB or more counts by its path, size and modification time
#   an absolute folder   counts by its path and its content (a corpus: a changed transcript is another setting)
#   any other text       counts by its value, also the name of a relative folder such as exp/NAME: the recipe itself
#                        writes there, so its content follows from the earlier stages

stages_first=0
stages_last=8 # the last stage that any recipe has
stages_last_shared=2 # what the stages up to this one write, all seeds and models of a work folder read
stages_lang="" # set by the recipe: name of the folder of units, lexicon and language models, which stage 2 writes
stages_experiment="" # set by the recipe: name of the folder of the system, which the stages after it write
stages_lock="" # file descriptor of the lock on the work folder
stages_unlocked=false # true: the work folder cannot be locked, and the user was told so
stages_scripts=$(CDPATH="" cd -- "$(dirname "${BASH_SOURCE[0]}")" && pwd)
stages_force=false
stages_list=false
stages_fingerprint="" # checksum of the settings of this stage and of all stages before it
stages_marker="" # of the stage before, or of the one that is running
stages_inputs=() # checksums of the files that the running stage has named by stage_reads
stages_current="" # number and title of the stage that is running
stages_started=0 # in seconds of this script's run time

# setup_stages FIRST LAST FORCE [LIST]: checks the options --stage, --stop-stage, --force and --list, and traps errors
# and Ctrl-C.
setup_stages() {
    local number
    for number in "$1" "$2"; do
        [[ $number =~ ^[0-8]$ ]] || option_error "--stage or --stop-stage: stage '$number' is not a number from 0 to 8 (see $0 --help)"
    done
    [ "$1" -le "$2" ] || option_error "--stage $1 is after --stop-stage $2"
    require_choice --force "$3" true false
    require_choice --list "${4:-false}" true false
    stages_first=$1
    stages_last=$2
    stages_force=$3
    stages_list=${4:-false}
    trap 'echo "$0: interrupted; the same command continues here" >&2; exit 130' INT TERM
    trap 'report_failure $?' EXIT
}

# report_failure STATUS: prints in which stage the script stopped.
report_failure() {
    if [ "$1" != 0 ]; then
        echo "$0: stopped with exit status $1${stages_current:+ in stage $stages_current}" >&2
    fi
}

# begin_stage NUMBER TITLE SETTING...: succeeds if the stage has to run.
begin_stage() {
    local number=$1 title=$2 setting
    shift 2
    if [ -f "$stages_marker" ]; then stages_fingerprint+=$(sed -n 3p "$stages_marker"); fi
    stages_marker=$(marker_of "$number")
    for setting in "$@"; do
        stages_fingerprint+="|$(setting_fingerprint "$setting")"
    done
    stages_fingerprint=$(echo "$stages_fingerprint|$number" | cksum)
    if [ "$stages_list" = true ]; then
        for setting in "$@"; do
            if [[ $setting == /* && -e $setting ]]; then printf 'input\t%s\t%s\n' "$number" "$setting"; fi
        done
        printf 'stage\t%s\t%s\t%s\t' "$number" "$(stage_state "$number")" "$title"
        if [ -f "$stages_marker" ]; then sed -n 2p "$stages_marker"; else echo; fi
        return 1
    fi
    if [ "$number" -lt "$stages_first" ] || [ "$number" -gt "$stages_last" ]; then return 1; fi
    if [ "$stages_force" = false ] && [ "$(stage_state "$number")" = "done" ]; then
        echo "Stage $number: $title: already done and unchanged; $(sed -n 2p "$stages_marker")"
        return 1
    fi
    if [ "$number" -le "$stages_last_shared" ]; then lock_work_folder exclusive; fi
    rm -f "$stages_marker"
    stages_inputs=()
    stages_current="$number ($title)"
    stages_started=$SECONDS
    mkdir -p "$(dirname "$stages_marker")"
    echo "$stages_current" >"$(dirname "$stages_marker")/running"
    echo "Stage $number: $title"
}

# marker_of NUMBER: prints the path of the marker of a stage.
marker_of() {
    local folder=""
    if [ "$1" = 2 ]; then folder=$stages_lang; elif [ "$1" -gt 2 ]; then folder=$stages_experiment; fi
    echo ".done/${folder:+$folder/}stage$1"
}

# lock_work_folder shared|exclusive: locks the work folder for this script and the commands that it starts, until they
# have ended. Recipes with another seed or model may share it, but while one of them writes the data that all of them read,
# it has the folder alone. Exits with an error if another recipe is in the way; an interrupted one gets some seconds to
# end. Without the command flock, nothing is locked; on a file system without locks, a warning says so.
lock_work_folder() {
    local status=0
    command -v flock >/dev/null || return 0
    if [ -z "$stages_lock" ]; then exec {stages_lock}<>.lock; fi # NFS refuses shared locks on files that cannot be read
    flock "--$1" --timeout 5 --conflict-exit-code 75 "$stages_lock" 2>/dev/null || status=$?
    if [ "$status" = 75 ]; then
        option_error "another recipe runs in the work folder $PWD: wait until it has ended, or give another --work"
    elif [ "$status" != 0 ] && [ "$stages_unlocked" = false ]; then
        stages_unlocked=true
        echo "$0: warning: the work folder $PWD cannot be locked: run one recipe at a time there" >&2
    fi
}

# stage_state NUMBER: prints `done` for a stage that is completed with the current settings, `changed` if it is
# completed with other ones, `interrupted` if it was the last one to run and did not complete, else `missing`.
stage_state() {
    local marker
    marker=$(marker_of "$1")
    if [ ! -f "$marker" ]; then
        if [[ $(cat "$(dirname "$marker")/running" 2>/dev/null) == "$1 "* ]]; then echo interrupted; else echo missing; fi
    elif [ "$(head -n 1 "$marker")" = "$stages_fingerprint" ] && inputs_unchanged "$marker"; then
        echo "done"
    else
        echo changed
    fi
}

# finish_stage OUTPUT...: records that the stage is complete; OUTPUT says what it wrote.
finish_stage() {
    printf '%s\n' "$stages_fingerprint" "$*" "$(date +%s.%N)" "${stages_inputs[@]}" >"$stages_marker.tmp"
    mv "$stages_marker.tmp" "$stages_marker"
    rm -f "$(dirname "$stages_marker")/running"
    lock_work_folder shared
    echo "Stage ${stages_current%% *}: wrote $* ($((SECONDS - stages_started)) s)"
    stages_current=""
}

# stage_reads FILE: records in the marker of the running stage that it reads FILE, which is written by other runs.
stage_reads() {
    stages_inputs+=("$(cksum <"$1") $1")
}

# inputs_unchanged MARKER: succeeds if the files that the stage read, as far as they exist, have the recorded content.
inputs_unchanged() {
    local checksum size path
    while read -r checksum size path; do
        if [ -f "$path" ] && [ "$(cksum <"$path")" != "$checksum $size" ]; then return 1; fi
    done < <(sed 1,3d "$1")
}

# completion_of NUMBER: prints what identifies the last run of a stage: the checksum of its settings, and its time.
completion_of() {
    sed -n '1p;3p' "$(marker_of "$1")" 2>/dev/null || true
}

# setting_fingerprint SETTING: prints what identifies a setting.
setting_fingerprint() {
    if [ -f "$1" ] && [ -n "$(find -L "$1" -prune -size -64M)" ]; then
        config_files "$1" | tr '\n' '\0' | xargs -0r cat -- | cksum
    elif [ -f "$1" ]; then
        find -L "$1" -prune -printf '%p %s %T@\n'
    elif [[ $1 == /* && -d $1 ]]; then
        printf '%s %s\n' "$1" "$(folder_content "$1" | cksum)"
    else
        printf '%s\n' "$1"
    fi
}

# config_files FILE: prints the path of FILE and, if it is a configuration, of all files that it is based on, each once.
# A configuration that cannot be read is reported by asrtool.
config_files() {
    if [[ $1 =~ [.]ya?ml$ ]] && grep -q base "$1" &&
        python3 "$stages_scripts/config_values.py" --files "$1" 2>/dev/null; then
        return 0
    fi
    realpath -- "$1"
}

# folder_content FOLDER: prints the checksum of each file in FOLDER. Audio files and files of 64 MB or more take long to
# read: of these, it prints the size and the modification time. Hidden files do not count, nor do the files that the
# recipe itself writes into the work folder.
folder_content() {
    local ignored files small path
    ignored=(-name ".*")
    for path in exp data/fbank data/aligned "data/lang*" "data/ablations*" data/scored_sets "data/*.jsonl.gz"; do
        ignored+=(-o -path "$(realpath .)/$path")
    done
    files=(find -L "$1" -mindepth 1 "(" "${ignored[@]}" ")" -prune -o -type f)
    small=(-size -64M -not -iregex '.*[.]\(wav\|flac\|mp3\|ogg\|opus\|m4a\|aac\|sph\|aif\|aiff\)')
    "${files[@]}" "${small[@]}" -print0 | LC_ALL=C sort -z | xargs -0r cksum
    "${files[@]}" -not "(" "${small[@]}" ")" -printf '%p %s %T@\n' | LC_ALL=C sort
}
