#!/usr/bin/env bash
# The yesno corpus (OpenSLR 1): one speaker, 60 recordings of eight Hebrew words, each "yes" or "no". Trains in a minute.
#
#   bash egs/yesno/run.sh                              downloads the corpus, and does everything
#   bash egs/yesno/run.sh --corpus-dir /corpora/yesno  uses the copy there
#
#   --stage N, --stop-stage N   first and last stage: 0 data, 2 lang, 3 warmup, 4 train, 5 decode, 6 score
#   --corpus-dir DIR            the folder with the 60 .wav files, or the one above it
#   --conf FILE                 configuration of the model and its training (default conf/transformer.yaml)
#   --seed N                    of the training (default 1)
#   --warmup-hours H            audio to train on with one machine before the training proper (default 0)
#   --ranks N                   training processes on this machine, one a GPU (default 1)
#   --launcher CMD              starts stage 4 on all machines (see local/train.sh)
#   --work DIR                  where data/ and exp/ go (default this folder)
#   --force true                do stages again that are done and unchanged
set -euo pipefail
cd "$(dirname "$0")"

stage=0 stop_stage=6 corpus_dir="" conf=conf/transformer.yaml seed=1 work=. force=false
warmup_hours=0 ranks=1 launcher=""
options="stage stop_stage corpus_dir conf seed work force warmup_hours ranks launcher"
. ../../local/parse_options.sh
. ../../local/stages.sh
. ../../local/train.sh
. ../../local/path.sh
conf=$(realpath "$conf")
if [ -n "$corpus_dir" ]; then corpus_dir=$(realpath -m "$corpus_dir"); fi
mkdir -p "$work"
cd "$work"
exp=exp/$(basename "$conf" .yaml)_seed$seed

if begin 0 data "60 recordings: every other one to train and to test" . "$corpus_dir"; then
    if [ -z "$corpus_dir" ]; then
        corpus_dir=download
        lhotse download yesno "$corpus_dir" || stages_stop "cannot download yesno; get it and give --corpus-dir DIR"
    fi
    for part in train test; do
        asrtool prepare yesno "$corpus_dir" data/$part.jsonl.gz --part $part --sampling-rate 8000
    done
    finish "data/{train,test}.jsonl.gz"
fi

if begin 2 lang "whole words as units" .; then
    asrtool tokenizer data/train.jsonl.gz data/lang/tokenizer.json --type word
    finish "data/lang/tokenizer.json"
fi

train_stages "$conf" "$exp"

if begin 5 decode "greedy and prefix beam search" . "$exp"; then
    asrtool decode "$exp" data/test.jsonl.gz --method greedy --method prefix --workers 0
    finish "$exp/decode/test/{greedy,prefix}/hyps.jsonl"
fi

if begin 6 score "word error rates with 95 % intervals" . "$exp"; then
    for method in greedy prefix; do
        echo "$method:"
        asrtool score "$exp"/decode/test/$method
    done | tee "$exp/results.txt"
    finish "$exp/decode/test/*/{wer.json,report.txt,alignments.txt,alignments.jsonl}"
fi
