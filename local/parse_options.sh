#!/usr/bin/env bash
# Source this in a script that has set the defaults of its options, changed into its own folder, and listed the names
# of its options in $options. For each `--some-option value` on the command line it sets the variable some_option;
# `--help` prints the comment at the head of the script, and then calls print_shared_options if that is a function. A
# wrong option prints one line and exits with status 2. Options that are also listed in $path_options, if there is such
# a variable, become absolute paths unless they are empty, or `none` or `openslr`.
#
# It also defines
#   option_error MESSAGE...                 prints one error line and exits with status 2
#   require_choice OPTION VALUE CHOICE...   exits with an error unless VALUE is one of the CHOICEs
#   absolute_path PATH                      prints the absolute path of an option's value: relative to the folder where
#                                           the script was called or, if it exists only there, to the script's folder,
#                                           as in `--conf conf/x.yaml`

options_called_from=${OLDPWD:-$PWD} # the script has already changed into its own folder

option_error() {
    trap - EXIT # the error line is the last line
    echo "$0: error: $*" >&2
    exit 2
}

require_choice() {
    local option=$1 value=$2 choice choices
    shift 2
    for choice in "$@"; do
        if [ "$value" = "$choice" ]; then return 0; fi
    done
    choices=$(printf '%s, ' "${@:1:$#-1}")
    option_error "$option is ${choices%, } or ${!#}, not '$value'"
}

absolute_path() {
    if [[ $1 != /* ]] && { [ -e "$options_called_from/$1" ] || [ ! -e "$1" ]; }; then
        realpath -m "$options_called_from/$1"
    else
        realpath -m "$1"
    fi
}

while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        if [ -f "$0" ]; then options_script=$0; else options_script=$(basename "$0"); fi # $0 is relative to the caller
        sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$options_script"
        if declare -F print_shared_options >/dev/null; then print_shared_options; fi
        exit 0
        ;;
    --*)
        options_name=${1#--}
        options_name=${options_name//-/_}
        if [[ $options_name == *[[:space:]]* || " $options " != *" $options_name "* ]]; then
            options_known=${options//_/-}
            option_error "unknown option $1; the options are --${options_known// / --} --help"
        fi
        if [ $# -lt 2 ]; then option_error "$1 needs a value"; fi
        printf -v "$options_name" %s "$2"
        shift 2
        ;;
    *)
        option_error "unexpected argument '$1'; options are --name value (see $0 --help)"
        ;;
    esac
done

for options_name in ${path_options:-}; do
    if [[ ! ${!options_name} =~ ^(none|openslr|)$ ]]; then
        printf -v "$options_name" %s "$(absolute_path "${!options_name}")"
    fi
done
