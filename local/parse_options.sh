#!/usr/bin/env bash
# Source this after setting defaults: `--some-option value` sets the variable some_option, if it is one of $options.
# `--help` prints the comment at the head of the script. Wrong options are one line and exit status 2.

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
