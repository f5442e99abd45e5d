#!/usr/bin/env bash
# The yesno corpus (OpenSLR 1): one speaker, 60 recordings of eight Hebrew words, each "yes" or "no". Trains in a minute.
#
#   bash egs/yesno/run.sh                              downloads the corpus, and does everything
#   bash egs/yesno/run.sh --corpus-dir /corpora/yesno  uses the copy there
#
#   --stage N, --stop-stage N   first and last stage: 0 data, 2 lang, 3 warmup, 4 train, 5 decode, 6 score
#   --corpus-dir DIR            the folder with the 60 .wav files, or the one above it
#   --mirror URL                OpenSLR's resources (default https://www.openslr.org/resources)
#   --units word|phone          what the model puts out (default word)
#   --objective ctc|mmi|ce      what the training minimises (default ctc); mmi and ce start from a CTC system
#   --from EXP                  that system (default the same with ctc, trained when it is not there)
#   --decode "METHOD ..."       of greedy, prefix and graph (default all), and at last, adapted: as the one before, with
#                               the model adapted to each speaker by what was found last; repeatable
#   --scales FILE               of the search in the graph, from `asrtool tune` (default: none)
#   --conf FILE                 configuration of the model and its training (default conf/transformer.yaml)
#   --seed N                    of the training (default 1)
#   --warmup-hours H            audio to train on with one machine before the training proper (default 0)
#   --ranks N                   training processes on this machine, one a GPU (default 1)
#   --launcher CMD              starts stage 4 on all machines (see local/train.sh)
#   --work DIR                  where data/ and exp/ go (default this recipe's folder)
#   --force true                do stages again that are done and unchanged
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD

stage=0 stop_stage=6 corpus_dir="" conf=$here/conf/transformer.yaml seed=1 work=$here force=false
mirror=https://www.openslr.org/resources
units=word objective=ctc from="" decode="greedy prefix graph" scales="" warmup_hours=0 ranks=1 launcher=""
options="stage stop_stage corpus_dir mirror conf seed work force units objective from decode scales"
options+=" warmup_hours ranks launcher"
. ../../local/parse_options.sh
. ../../local/stages.sh
. ../../local/train.sh
. ../../local/decode.sh
. ../../local/path.sh
[[ $units =~ ^(word|phone)$ ]] || stages_stop "--units is word or phone, not '$units'"
if [ -n "$corpus_dir" ]; then corpus_dir=$(located "$corpus_dir"); fi
work=$(located "$work")
mkdir -p "$work"
cd "$work"
name_experiment word

if begin 0 data "60 recordings: every other one to train and to test" . "$corpus_dir"; then
    if [ -z "$corpus_dir" ]; then
        corpus_dir=download
        python3 "$ASRTOOL_ROOT/local/download.py" "$corpus_dir" waves_yesno \
            --url "$mirror" --sums "$here/local/sha256sum.txt"
    fi
    for part in train test; do
        asrtool prepare yesno "$corpus_dir" data/$part.jsonl.gz --part $part --sampling-rate 8000
    done
    finish "data/{train,test}.jsonl.gz"
fi

if begin 2 lang "units: ${units}s; a bigram of words; the graph of both" . "$units"; then
    spelling=()
    if [ "$units" = phone ]; then spelling=(--lexicon "$here/local/lexicon.txt"); fi
    asrtool tokenizer data/train.jsonl.gz "$lang/tokenizer.json" --type "$units" "${spelling[@]}"
    asrtool lm train data/train.jsonl.gz "$lang/bigram.arpa" --order 2
    asrtool graph "$lang/graph" --tokenizer "$lang/tokenizer.json" --lm "$lang/bigram.arpa" "${spelling[@]}"
    finish "$lang/tokenizer.json and $lang/graph"
fi

train_stages data/train.jsonl.gz data/train.jsonl.gz
decode_stages "" data/test.jsonl.gz # with no set to tune the graph's scales on
