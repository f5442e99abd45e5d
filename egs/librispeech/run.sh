#!/usr/bin/env bash
# LibriSpeech (OpenSLR 12 and 31), any of its parts: BPE units or phones, any objective, a graph with an n-gram.
#
#   bash egs/librispeech/run.sh                                     downloads mini LibriSpeech (5 h), and uses it
#   bash egs/librispeech/run.sh --parts 960h --lm openslr           downloads everything, and the usual LMs and lexicon
#   bash egs/librispeech/run.sh --corpus-dir /corpora/LibriSpeech   all parts that are there
#   bash egs/librispeech/run.sh --corpus-dir /corpora/LibriSpeech --train-parts train-clean-5 --dev-speakers 1737,2136
#
#   --stage N, --stop-stage N   first and last stage: 0 data, 1 features, 2 lang, 3 warmup, 4 train, 5 decode, 6 score,
#                               7 stream, 8 export (default 0 to 8)
#   --parts mini|100h|960h      or names, "train-clean-100 dev-clean": the parts to use (default mini, or all there)
#   --corpus-dir DIR            the folder of the parts, or the one above it; without it the parts are downloaded
#   --mirror URL                to download from (default https://www.openslr.org/resources)
#   --train-parts "P P"         of these, the parts to train on (default all train-*)
#   --dev-parts "P P"           parts for the dev set (default all dev-*)
#   --dev-speakers LIST         instead: these speakers of the training parts, comma-separated or a file
#   --test-speakers LIST|K/N    these of the training parts, or every N-th from the K-th on, are a test set, "held_out"
#   --test-parts "P P"          test sets (default all test-*; with none, dev is scored alone)
#   --units bpe|char|phone      what the model puts out (default bpe)
#   --objective ctc|mmi|ce      what the training minimises (default ctc); mmi and ce start from a CTC system
#   --from EXP                  that system (default the same with ctc, trained when it is not there)
#   --decode "METHOD ..."       of greedy, prefix, graph, rescored (the graph's lattices with a 4-gram), neural (the n
#                               best of these with a neural language model, by minimum Bayes risk) and, at last, adapted
#                               (as the one before, with the model adapted to each speaker by what was found last), once
#                               or several times; default: all but the last two
#   --scales FILE               of the search in the graph, from `asrtool tune` (default: tuned on dev)
#   --lm openslr                LibriSpeech's 3-gram, 4-gram and lexicon (OpenSLR 11), or the folder that has these files
#   --lm-text "FILE FILE"       without --lm: text for language models beside the training transcripts (default none)
#   --lm-words N                its most frequent words (default 64000)
#   --neural "OPTIONS"          of `asrtool lm train-neural`, for the neural language model of the same text; to train
#                               it anew, remove neural.pt in the lang folder (default "--epochs 2")
#   --lm-prune P                of the graph's 3-gram: least rise of perplexity (default 1e-7)
#   --conf FILE                 model and training (default conf/transformer_small.yaml)
#   --vocab-size N              BPE units (default 500)
#   --speeds LIST               of the training features (default 0.9,1.0,1.1)
#   --seed N                    of the training (default 1)
#   --warmup-hours H            audio to train on with one machine before the training proper (default 0)
#   --ranks N                   training processes on this machine, one a GPU (default 1)
#   --launcher CMD              starts stage 4 on all machines (see local/train.sh)
#   --work DIR                  where data/ and exp/ go (default this recipe's folder)
#   --jobs N                    processes for data preparation (default 2)
#   --force true                do stages again that are done and unchanged
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD

stage=0 stop_stage=8 parts="" corpus_dir="" mirror=https://www.openslr.org/resources
train_parts="" dev_parts="" dev_speakers="" test_speakers="" test_parts="" units=bpe objective=ctc from=""
decode="greedy prefix graph rescored" scales="" lm="" lm_text="" lm_words=64000 lm_prune=1e-7 neural="--epochs 2"
conf=$here/conf/transformer_small.yaml vocab_size=500 speeds=0.9,1.0,1.1 seed=1 warmup_hours=0 ranks=1 launcher=""
work=$here jobs=2 force=false
options="stage stop_stage parts corpus_dir mirror train_parts dev_parts dev_speakers test_speakers test_parts units"
options+=" objective from decode scales lm lm_text lm_words lm_prune neural conf vocab_size speeds seed warmup_hours"
options+=" ranks launcher work jobs force"
. ../../local/parse_options.sh
. ../../local/stages.sh
. ../../local/train.sh
. ../../local/decode.sh
. ../../local/path.sh
. local/data.sh
. local/lang.sh
[[ $units =~ ^(bpe|char|phone)$ ]] || stages_stop "--units is bpe, char or phone, not '$units'"
[ -z "$lm" ] || [ -z "$lm_text" ] || stages_stop "--lm-text makes language models; --lm has them: give one of the two"
texts=(data/train.jsonl.gz)
if [ -f "$(located "$lm_text")" ]; then # one file, whose name may have spaces
    texts+=("$(located "$lm_text")")
else
    for text in $lm_text; do texts+=("$(located "$text")"); done
fi
if [ -n "$lm" ] && [ "$lm" != openslr ]; then
    lm=$(located "$lm")
    find_lm
fi
if [ -n "$corpus_dir" ]; then corpus_dir=$(located "$corpus_dir"); fi
if [ -f "$(located "$dev_speakers")" ]; then dev_speakers=$(located "$dev_speakers"); fi
if [ -f "$(located "$test_speakers")" ]; then test_speakers=$(located "$test_speakers"); fi
work=$(located "$work")
mkdir -p "$work"
cd "$work"
name_experiment bpe

data_stage

if begin 1 features "80-bin log-mel, the training set at speeds $speeds, stored" . "$speeds"; then
    asrtool features data/train.jsonl.gz data/fbank/train.jsonl.gz --speeds "$speeds" --jobs "$jobs"
    for name in $(cat data/scored_sets); do
        asrtool features data/$name.jsonl.gz data/fbank/$name.jsonl.gz --jobs "$jobs"
    done
    finish "data/fbank/*.jsonl.gz"
fi

if begin 2 lang "${units/bpe/$vocab_size BPE} units; a 3-gram and a 4-gram of ${lm:-$lm_words words}; a graph" . \
    "$units" "$vocab_size" "$lm" "$lm_words" "$lm_prune" "${texts[@]:1}"; then
    make_lms
    spelling=()
    if [ "$units" = phone ]; then
        make_lexicon
        spelling=(--lexicon "$lang/lexicon.txt")
    fi
    asrtool tokenizer data/train.jsonl.gz "$lang/tokenizer.json" --type "$units" --vocab-size "$vocab_size" \
        "${spelling[@]}"
    for model in graph.arpa.gz rescore.npz; do asrtool lm perplexity "$lang/$model" data/dev.jsonl.gz; done
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
