#!/usr/bin/env bash
# Source this after parse_options.sh. It defines where the language models and the lexicon of stage 2 come from.

lm_files="3-gram.pruned.1e-7.arpa.gz 4-gram.arpa.gz librispeech-lexicon.txt" # of OpenSLR 11

# check_lm_folder FOLDER: exits with an error unless FOLDER has all files of OpenSLR 11 that the recipe uses.
check_lm_folder() {
    local file
    for file in $lm_files; do
        [ -f "$1/$file" ] || option_error "no $file in $1; --lm takes a folder with $lm_files, or openslr"
    done
}

# download_lm MIRROR SUMS FOLDER: downloads the files of OpenSLR 11 into FOLDER, unless they are there.
download_lm() {
    python3 "$ASRTOOL_ROOT/local/download.py" "$3" $lm_files --url "$1" --sums "$2"
}

# text_paths "FILE FILE": prints the absolute paths of the files of --lm-text, one a line. The name of a single file may
# contain spaces.
text_paths() {
    local text
    if [ -f "$(absolute_path "$1")" ]; then
        absolute_path "$1"
    else
        for text in $1; do absolute_path "$text"; done
    fi
}

# make_lms LANG LM_FOLDER WORDS PRUNE TEXT...: makes LANG/graph.arpa.gz, the pruned 3-gram of the decoding graph, and
# LANG/rescore.npz, the 4-gram that rescores its lattices. Both come from LM_FOLDER or, if that is "", they are trained
# on the TEXTs with the WORDS most frequent words.
make_lms() {
    local lang=$1 lm_folder=$2 words=$3 prune=$4
    shift 4
    mkdir -p "$lang"
    rm -f "$lang/graph.arpa.gz" # it may be a link
    if [ -n "$lm_folder" ]; then
        check_lm_folder "$lm_folder"
        ln -s "$(realpath "$lm_folder/3-gram.pruned.1e-7.arpa.gz")" "$lang/graph.arpa.gz"
        asrtool lm convert "$lm_folder/4-gram.arpa.gz" "$lang/rescore.npz"
    else
        asrtool lm train "$@" "$lang/graph.arpa.gz" --order 3 --case upper --top "$words" --prune "$prune"
        asrtool lm train "$@" "$lang/rescore.npz" --order 4 --case upper --top "$words"
    fi
}

# make_lexicon LANG LM_FOLDER WORDS TEXT...: makes LANG/lexicon.txt, with pronunciations from the lexicon in LM_FOLDER,
# without stress, or, if that is "", from CMUdict; words that have none get one by grapheme-to-phoneme. It also has the
# words of dev, for the dev loss; the graph has the words of the 3-gram.
make_lexicon() {
    local lang=$1 lm_folder=$2 words=$3
    shift 3
    if [ -n "$lm_folder" ]; then
        awk '{print $1}' "$lm_folder/librispeech-lexicon.txt" >"$lang/words.txt"
        asrtool lexicon data/dev.jsonl.gz data/train.jsonl.gz "$lang/words.txt" "$lang/lexicon.txt" \
            --source "$lm_folder/librispeech-lexicon.txt" --stress drop --unknown g2p
    else
        asrtool lexicon data/dev.jsonl.gz "$@" "$lang/lexicon.txt" --source cmudict --case upper \
            --unknown g2p --top "$words"
    fi
}

# grow_units LANG UNITS LEAVES SYSTEM FINGERPRINT: makes LANG/tokenizer.json, at most LEAVES units of phones in context
# (UNITS is biphone or triphone), by trees grown on alignments of the training set by the phone system SYSTEM.
grow_units() {
    local lang=$1 units=$2 leaves=$3 system=$4 fingerprint=$5
    align_once "$system" "$lang/aligned" "$fingerprint" data/fbank/train.jsonl.gz
    asrtool tree "$lang/aligned/train.jsonl.gz" "$lang/tokenizer.json" --tokenizer "$system/tokenizer.json" \
        --units "$units" --leaves "$leaves"
}
