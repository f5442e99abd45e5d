#!/usr/bin/env bash
# Connected digits, spoken by espeak-ng: from no data to a word error rate, offline, in minutes on two CPU cores.
#
#   bash egs/digits/run.sh                        # all stages
#   bash egs/digits/run.sh --seed 2 --stage 4     # from the training on, with another seed
#   bash egs/digits/run.sh --units phone --objective mmi
#
#   --train N --dev N --test N  number of utterances of each set (default 3600, 300, 500)
set -euo pipefail
CDPATH="" cd -- "$(dirname "$0")"
. ../../local/recipe.sh # all stages, and the options that all recipes have

train=3600 dev=300 test=500
data_options="train dev test jobs" # of local/data.sh
data_files=local/synthesise.py
data_title="prepare data (synthetic speech in the layout of LibriSpeech)"

conf=conf/transformer.yaml
units=word unknown=drop case=upper # ten words; CMUdict has them all
lm_order=2 lm_words=0
run_recipe "$@"
