#!/usr/bin/env bash
# LibriSpeech (OpenSLR 12 and 31), any of its parts: BPE units, CTC.
#
#   bash egs/librispeech/run.sh                                     downloads mini LibriSpeech (5 h), and uses it
#   bash egs/librispeech/run.sh --corpus-dir /corpora/LibriSpeech   all parts that are there
#   bash egs/librispeech/run.sh --corpus-dir /corpora/LibriSpeech --train-parts train-clean-5 --dev-speakers 1737,2136
#
#   --stage N, --stop-stage N   first and last stage: 0 data, 1 features, 2 lang, 3 warmup, 4 train, 5 decode, 6 score,
#                               7 stream, 8 export (default 0 to 8)
#   --corpus-dir DIR            the folder of the parts, or the one above it; without it --download is fetched
#   --download PARTS            what lhotse downloads: mini_librispeech, or parts (default mini_librispeech)
#   --train-parts "P P"         parts to train on (default all train-* there)
#   --dev-parts "P P"           parts for the dev set (default all dev-* there)
#   --dev-speakers LIST         instead: these speakers of the training parts, comma-separated or a file
#   --test-parts "P P"          test sets (default all test-* there; with none, dev is scored alone)
#   --conf FILE                 model and training (default conf/transformer_small.yaml)
#   --vocab-size N              BPE units (default 500)
#   --speeds LIST               of the training features (default 0.9,1.0,1.1)
#   --seed N                    of the training (default 1)
#   --warmup-hours H            audio to train on with one machine before the training proper (default 0)
#   --ranks N                   training processes on this machine, one a GPU (default 1)
#   --launcher CMD              starts stage 4 on all machines (see local/train.sh)
#   --work DIR                  where data/ and exp/ go (default this folder)
#   --jobs N                    processes for data preparation (default 2)
#   --force true                do stages again that are done and unchanged
set -euo pipefail
cd "$(dirname "$0")"

stage=0 stop_stage=8 corpus_dir="" download=mini_librispeech train_parts="" dev_parts="" dev_speakers="" test_parts=""
conf=conf/transformer_small.yaml vocab_size=500 speeds=0.9,1.0,1.1 seed=1 work=. jobs=2 force=false
warmup_hours=0 ranks=1 launcher=""
options="stage stop_stage corpus_dir download train_parts dev_parts dev_speakers test_parts conf vocab_size speeds seed"
options+=" work jobs force warmup_hours ranks launcher"
. ../../local/parse_options.sh
. ../../local/stages.sh
. ../../local/train.sh
. ../../local/path.sh
. local/parts.sh
conf=$(realpath "$conf")
if [ -n "$corpus_dir" ]; then corpus_dir=$(realpath -m "$corpus_dir"); fi
if [ -f "$dev_speakers" ]; then dev_speakers=$(realpath "$dev_speakers"); fi
mkdir -p "$work"
cd "$work"
exp=exp/$(basename "$conf" .yaml)_seed$seed

if begin 0 data "manifests of ${corpus_dir:-a download of $download}" . \
    "$corpus_dir" "$train_parts" "$dev_parts" "$dev_speakers" "$test_parts"; then
    if [ -z "$corpus_dir" ]; then
        corpus_dir=download/LibriSpeech
        lhotse download librispeech -p "$download" download || stages_stop "cannot download; give --corpus-dir DIR"
    fi
    find_parts
    rm -f data/*.jsonl.gz data/fbank/*.jsonl.gz # the sets of another choice of parts
    if [ -n "$dev_speakers" ]; then
        prepare_set train "$train_parts" --exclude-speakers "$dev_speakers"
        prepare_set dev "$train_parts" --speakers "$dev_speakers"
    else
        prepare_set train "$train_parts"
        prepare_set dev "$dev_parts"
    fi
    for part in $test_parts; do prepare_set "$part" "$part"; done
    echo dev $test_parts >data/scored_sets
    finish "data/{train,dev,test-*}.jsonl.gz"
fi

if begin 1 features "80-bin log-mel, the training set at speeds $speeds, stored" . "$speeds"; then
    asrtool features data/train.jsonl.gz data/fbank/train.jsonl.gz --speeds "$speeds" --jobs "$jobs"
    for name in $(cat data/scored_sets); do
        asrtool features data/$name.jsonl.gz data/fbank/$name.jsonl.gz --jobs "$jobs"
    done
    finish "data/fbank/*.jsonl.gz"
fi

if begin 2 lang "$vocab_size BPE units from the training transcripts" . "$vocab_size"; then
    asrtool tokenizer data/train.jsonl.gz data/lang/tokenizer.json --type bpe --vocab-size "$vocab_size"
    finish "data/lang/tokenizer.json"
fi

train_stages "$conf" "$exp"

if begin 5 decode "greedy and prefix beam search" . "$exp"; then
    sets=()
    for name in $(cat data/scored_sets); do sets+=("data/fbank/$name.jsonl.gz"); done
    asrtool decode "$exp" "${sets[@]}" --method greedy --method prefix
    finish "$exp/decode/*/{greedy,prefix}/hyps.jsonl"
fi

if begin 6 score "word error rates with 95 % intervals" . "$exp"; then
    for method in greedy prefix; do
        echo "$method:"
        asrtool score "$exp"/decode/*/$method
    done | tee "$exp/results.txt"
    finish "$exp/decode/*/*/{wer.json,report.txt,alignments.txt,alignments.jsonl}"
fi

later 7 stream "decode the test sets chunk by chunk, and print WER, latency and real-time factor"
later 8 export "write ONNX and check that it gives the same log-probs"
