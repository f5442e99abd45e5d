#!/usr/bin/env bash
# LibriSpeech (OpenSLR 12 and 31), all or any of its parts: BPE units or phones, any objective, a graph with an n-gram.
#
#   bash egs/librispeech/run.sh                                     # downloads mini LibriSpeech (5 h) and uses it
#   bash egs/librispeech/run.sh --parts 960h --lm openslr           # downloads all, and OpenSLR's LMs and lexicon
#   bash egs/librispeech/run.sh --corpus-dir /corpora/LibriSpeech   # uses all parts in this folder
#   bash egs/librispeech/run.sh --corpus-dir /corpora/LibriSpeech --train-parts train-clean-5 --dev-speakers 1737,2136
#
#   --parts mini|100h|960h      parts to use, or their names, "train-clean-100 dev-clean" (default mini, or all parts of
#                               --corpus-dir)
#   --corpus-dir DIR            folder of the parts, or the folder above it; without it the parts are downloaded
#   --mirror URL                OpenSLR's resources (default https://www.openslr.org/resources)
#   --train-parts "P P"         parts to train on (default all train-*)
#   --dev-parts "P P"           parts of the dev set (default all dev-*)
#   --dev-speakers LIST         instead: speakers of the training parts, comma-separated or a file
#   --test-speakers LIST|K/N    speakers of the training parts for a test set "held_out": a list, or every N-th from the
#                               K-th on
#   --test-parts "P P"          test sets, one each (default all test-*; if there are none, dev alone is scored)
#   --lm openslr|DIR            language models and lexicon of OpenSLR 11, or a folder with these files (default: train
#                               n-grams on the transcripts, and take --lexicon)
set -euo pipefail
CDPATH="" cd -- "$(dirname "$0")"
. ../../local/recipe.sh # all stages, and the options that all recipes have
. ./local/lm.sh         # functions for --lm

parts="" corpus_dir="" mirror=https://www.openslr.org/resources train_parts="" dev_parts="" dev_speakers=""
test_speakers="" test_parts="" lm=""
data_options="corpus_dir mirror parts train_parts dev_parts test_parts dev_speakers test_speakers" # of local/data.sh
recipe_options=lm # of this file
path_options+=" corpus_dir lm"

conf=conf/transformer_small.yaml stop_stage=8
case=upper # of the transcripts
lm_prune=1e-7 rescore_order=4
decode="greedy prefix graph rescored"

# check_recipe_options: called before the first stage.
check_recipe_options() {
    if [ -f "$(absolute_path "$dev_speakers")" ]; then dev_speakers=$(absolute_path "$dev_speakers"); fi
    if [ -f "$(absolute_path "$test_speakers")" ]; then test_speakers=$(absolute_path "$test_speakers"); fi
    check_openslr_lm
    data_title="prepare data (${corpus_dir:-a download of ${parts:-mini} LibriSpeech})"
}

# prepare_data: stage 0.
prepare_data() {
    run_data_script
    download_openslr_lm
}

# make_lms and make_lexicon: what stage 2 makes in $lang from --lm or, without it, as every recipe does.
make_lms() {
    if [ -n "$lm" ]; then take_openslr_lms; else train_lms; fi
}
make_lexicon() {
    if [ -n "$lm" ]; then take_openslr_lexicon; else build_lexicon; fi
}

# print_published: prints Kaldi's error rates if audio and language models of this run are the same.
print_published() {
    if [ -n "$lm" ] && [ "$(cat data/parts)" = "train-clean-5, dev-clean-2" ]; then
        cat "$recipe/local/kaldi_dev_clean_2.txt"
    fi
}

run_recipe "$@"
