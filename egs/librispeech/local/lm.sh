#!/usr/bin/env bash
# Source this after local/recipe.sh of the checkout. It defines where language models and lexicon come from with --lm.

lm_files="3-gram.pruned.1e-7.arpa.gz 4-gram.arpa.gz librispeech-lexicon.txt" # of OpenSLR 11

# check_openslr_lm: exits with an error if --lm is wrong; sets `lm_folder`, which is "" without --lm.
check_openslr_lm() {
    lm_folder=$lm
    lang_settings=("$lm")
    if [ "$lm" = openslr ]; then
        lm_folder=download/lm
    elif [ -n "$lm" ]; then
        require_lm_files
    fi
    [ -z "$lm" ] || [ -z "$lm_text" ] || option_error "--lm-text is for training LMs, and --lm gives LMs: choose one"
}

# require_lm_files: exits with an error unless $lm_folder has all files of OpenSLR 11 that the recipe uses.
require_lm_files() {
    local file
    for file in $lm_files; do
        [ -f "$lm_folder/$file" ] ||
            option_error "no $file in $lm_folder; --lm takes a folder with $lm_files, or openslr"
    done
}

# download_openslr_lm: downloads the files of OpenSLR 11 with --lm openslr, unless they are there.
download_openslr_lm() {
    if [ "$lm" = openslr ]; then
        python3 "$ASRTOOL_ROOT/local/download.py" "$lm_folder" $lm_files --url "$mirror" \
            --sums "$recipe/local/md5sum.txt"
    fi
}

# take_openslr_lms: links or converts the language models in $lm_folder to $lang/graph.arpa.gz, the pruned 3-gram of the
# decoding graph, and $lang/rescore.npz, the 4-gram that rescores its lattices.
take_openslr_lms() {
    download_openslr_lm
    require_lm_files
    rm -f "$lang/graph.arpa.gz" # it may be a link
    ln -s "$(realpath "$lm_folder/3-gram.pruned.1e-7.arpa.gz")" "$lang/graph.arpa.gz"
    asrtool lm convert "$lm_folder/4-gram.arpa.gz" "$lang/rescore.npz"
}

# take_openslr_lexicon: makes $lang/lexicon.txt with the pronunciations in $lm_folder, without stress; words that have
# none get one by grapheme-to-phoneme. It also has the words of dev, for the dev loss; the graph has the words of the LM.
take_openslr_lexicon() {
    awk '{print $1}' "$lm_folder/librispeech-lexicon.txt" >"$lang/words.txt"
    asrtool lexicon data/dev.jsonl.gz data/train.jsonl.gz "$lang/words.txt" "$lang/lexicon.txt" \
        --source "$lm_folder/librispeech-lexicon.txt" --stress drop --unknown g2p
}
