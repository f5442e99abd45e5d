#!/usr/bin/env bash
# Source this after setting defaults: `--some-option value` sets the variable some_option, if it is one of $options.
# `--help` prints the comment at the head of the script. Wrong options are one line and exit status 2.
#
#   located PATH    the path, absolute, that an option gives: relative to where the script was called, or, where only
#                   that is there, to the script's own folder, as in --conf conf/x.yaml

called_from=$OLDPWD # the script has changed into its own folder

located() {
    if [[ $1 != /* ]] && { [ -e "$called_from/$1" ] || [ ! -e "$1" ]; }; then
        realpath -m "$called_from/$1"
    else
        realpath -m "$1"
    fi
}

while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$(basename "$0")" # run.sh has changed into its own folder
        exit 0
        ;;
    --*)
        name=${1#--}
        name=${name//-/_}
        if [[ " $options " != *" $name "* ]]; then
            known=${options//_/-}
            echo "$0: error: unknown option $1; the options are --${known// / --} --help" >&2
            exit 2
        fi
        if [ $# -lt 2 ]; then
            echo "$0: error: $1 needs a value" >&2
            exit 2
        fi
        printf -v "$name" %s "$2"
        shift 2
        ;;
    *)
        echo "$0: error: unexpected argument '$1'; options are --name value (see $0 --help)" >&2
        exit 2
        ;;
    esac
done
