#!/usr/bin/env bash
# The yesno corpus (OpenSLR 1): 60 recordings of one speaker who says eight times "yes" or "no" in Hebrew. Trains in a
# minute.
#
#   bash egs/yesno/run.sh                              # downloads the corpus and runs all stages
#   bash egs/yesno/run.sh --corpus-dir /corpora/yesno  # uses this copy of the corpus
#
#   --corpus-dir DIR            the folder with the 60 .wav files, or the folder above it (default: download)
#   --mirror URL                OpenSLR's resources (default https://www.openslr.org/resources)
set -euo pipefail
CDPATH="" cd -- "$(dirname "$0")"
. ../../local/recipe.sh # all stages, and the options that all recipes have

corpus_dir="" mirror=https://www.openslr.org/resources
data_options="corpus_dir mirror" # of local/data.sh
path_options+=" corpus_dir"
data_title="prepare data (every other recording for training, the others for the test)"

conf=conf/transformer.yaml # computes features on the fly: no stage 1
units=word lexicon=local/lexicon.txt unknown=drop # of two words
lm_order=2 lm_words=0
jobs=1
run_recipe "$@"
