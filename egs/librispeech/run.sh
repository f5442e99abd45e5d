#!/usr/bin/env bash
# LibriSpeech (OpenSLR 12 and 31), any of its parts: BPE units or phones, any objective, a graph with an n-gram.
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
#   --units bpe|char|phone      what the model puts out (default bpe)
#   --objective ctc|mmi|ce      what the training minimises (default ctc); mmi and ce start from a CTC system
#   --from EXP                  that system (default the same with ctc, trained when it is not there)
#   --decode "METHOD ..."       of greedy, prefix, graph and rescored, the graph's lattices with a 4-gram (default all)
#   --lm-text "FILE FILE"       text for the language model beside the training transcripts (default none)
#   --lm-words N                its most frequent words (default 64000)
#   --lm-prune P                of the graph's 3-gram: least rise of perplexity (default 1e-7)
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
units=bpe objective=ctc from="" decode="greedy prefix graph rescored" lm_text="" lm_words=64000 lm_prune=1e-7
warmup_hours=0 ranks=1 launcher=""
options="stage stop_stage corpus_dir download train_parts dev_parts dev_speakers test_parts conf vocab_size speeds seed"
options+=" work jobs force units objective from decode lm_text lm_words lm_prune warmup_hours ranks launcher"
. ../../local/parse_options.sh
. ../../local/stages.sh
. ../../local/train.sh
. ../../local/decode.sh
. ../../local/path.sh
. local/parts.sh
[[ $units =~ ^(bpe|char|phone)$ ]] || stages_stop "--units is bpe, char or phone, not '$units'"
texts=(data/train.jsonl.gz)
for text in $lm_text; do texts+=("$(realpath -m "$text")"); done
conf=$(realpath "$conf")
if [ -n "$corpus_dir" ]; then corpus_dir=$(realpath -m "$corpus_dir"); fi
if [ -f "$dev_speakers" ]; then dev_speakers=$(realpath "$dev_speakers"); fi
mkdir -p "$work"
cd "$work"
name_experiment bpe

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

if begin 2 lang "${units/bpe/$vocab_size BPE} units; a 3-gram and a 4-gram of $lm_words words; a graph" . \
    "$units" "$vocab_size" "$lm_words" "$lm_prune" "${texts[@]:1}"; then
    spelling=()
    if [ "$units" = phone ]; then # also of the words of dev, for the dev loss; the graph has those of the 3-gram
        asrtool lexicon data/dev.jsonl.gz "${texts[@]}" "$lang/lexicon.txt" --source cmudict --case upper \
            --unknown g2p --top "$lm_words"
        spelling=(--lexicon "$lang/lexicon.txt")
    fi
    asrtool tokenizer data/train.jsonl.gz "$lang/tokenizer.json" --type "$units" --vocab-size "$vocab_size" \
        "${spelling[@]}"
    asrtool lm train "${texts[@]}" "$lang/graph.arpa.gz" --order 3 --case upper --top "$lm_words" --prune "$lm_prune"
    asrtool lm train "${texts[@]}" "$lang/rescore.arpa.gz" --order 4 --case upper --top "$lm_words"
    for lm in graph rescore; do asrtool lm perplexity "$lang/$lm.arpa.gz" data/dev.jsonl.gz; done
    asrtool graph "$lang/graph" --tokenizer "$lang/tokenizer.json" --lm "$lang/graph.arpa.gz" "${spelling[@]}"
    finish "$lang/tokenizer.json and $lang/graph"
fi

train_stages data/fbank/{train,dev}.jsonl.gz
sets=()
for name in $(cat data/scored_sets 2>/dev/null); do sets+=("data/fbank/$name.jsonl.gz"); done
decode_stages data/fbank/dev.jsonl.gz "${sets[@]}"

stream_stage data/fbank/dev.jsonl.gz "${sets[@]/fbank\//}" # from the audio, not the stored features
if begin 8 export "ONNX graphs for other runtimes, checked against the model; all systems of this folder in a table" \
    . "$exp"; then
    asrtool export "$exp" "$exp/export" --cuts data/fbank/dev.jsonl.gz
    systems=()
    for results in exp/*/results.txt; do systems+=("$(dirname "$results")"); done
    asrtool report "${systems[@]}" --out RESULTS.md
    finish "$exp/export and RESULTS.md"
fi
