#!/usr/bin/env bash
# Connected digits, spoken by espeak-ng: from nothing to a word error rate, offline, in minutes on two CPU cores.
#
#   bash egs/digits/run.sh                        everything
#   bash egs/digits/run.sh --stage 4              from the training on
#   bash egs/digits/run.sh --seed 2 --stage 4     the same with another seed
#
#   --stage N, --stop-stage N   first and last stage: 0 data, 1 features, 2 lang, 3 warmup, 4 train, 5 decode, 6 score
#   --units word|char|phone     what the model puts out (default word)
#   --objective ctc|mmi|ce      what the training minimises (default ctc); mmi and ce start from a CTC system
#   --from EXP                  that system (default the same with ctc, trained when it is not there)
#   --decode "METHOD ..."       of greedy, prefix and graph (default all), and at last, adapted: as the one before, with
#                               the model adapted to each speaker by what was found last; repeatable
#   --scales FILE               of the search in the graph, from `asrtool tune` (default: tuned on dev)
#   --conf FILE                 configuration of the model and its training (default conf/transformer.yaml)
#   --seed N                    of the training (default 1)
#   --warmup-hours H            audio to train on with one machine before the training proper (default 0)
#   --ranks N                   training processes on this machine, one a GPU (default 1)
#   --launcher CMD              starts stage 4 on all machines (see local/train.sh)
#   --train N --dev N --test N  utterances of each set (default 3600, 300, 500)
#   --work DIR                  where data/ and exp/ go (default this recipe's folder)
#   --jobs N                    processes for data preparation (default 2)
#   --force true                do stages again that are done and unchanged
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD

stage=0 stop_stage=6 conf=$here/conf/transformer.yaml seed=1 train=3600 dev=300 test=500 work=$here jobs=2 force=false
units=word objective=ctc from="" decode="greedy prefix graph" scales="" warmup_hours=0 ranks=1 launcher=""
options="stage stop_stage conf seed train dev test work jobs force units objective from decode"
options+=" scales warmup_hours ranks launcher"
. ../../local/parse_options.sh
. ../../local/stages.sh
. ../../local/train.sh
. ../../local/decode.sh
. ../../local/path.sh
[[ $units =~ ^(word|char|phone)$ ]] || stages_stop "--units is word, char or phone, not '$units'"
work=$(located "$work")
mkdir -p "$work"
cd "$work"
name_experiment word

if begin 0 data "speak digit strings, write them as a corpus in LibriSpeech's layout, make manifests" . "$train $dev $test"; then
    corpus=download/digits_${train}_${dev}_$test
    python3 "$here/local/synthesise.py" "$corpus" --train "$train" --dev "$dev" --test "$test" --jobs "$jobs"
    for part in train dev test; do
        asrtool prepare librispeech "$corpus" data/$part.jsonl.gz --part $part-digits
    done
    finish "data/{train,dev,test}.jsonl.gz"
fi

if begin 1 features "80-bin log-mel at three speeds, stored" .; then
    asrtool features data/train.jsonl.gz data/fbank/train.jsonl.gz --speeds 0.9,1.0,1.1 --jobs "$jobs"
    for part in dev test; do
        asrtool features data/$part.jsonl.gz data/fbank/$part.jsonl.gz --jobs "$jobs"
    done
    finish "data/fbank/{train,dev,test}.jsonl.gz"
fi

if begin 2 lang "units: ${units}s; a bigram of words; the graph of both" . "$units"; then
    spelling=()
    if [ "$units" = phone ]; then
        asrtool lexicon data/train.jsonl.gz "$lang/lexicon.txt" --source cmudict --case upper
        spelling=(--lexicon "$lang/lexicon.txt")
    fi
    asrtool tokenizer data/train.jsonl.gz "$lang/tokenizer.json" --type "$units" "${spelling[@]}"
    asrtool lm train data/train.jsonl.gz "$lang/bigram.arpa" --order 2
    asrtool graph "$lang/graph" --tokenizer "$lang/tokenizer.json" --lm "$lang/bigram.arpa" "${spelling[@]}"
    finish "$lang/tokenizer.json and $lang/graph"
fi

train_stages data/fbank/{train,dev}.jsonl.gz
decode_stages data/fbank/dev.jsonl.gz data/fbank/{dev,test}.jsonl.gz
