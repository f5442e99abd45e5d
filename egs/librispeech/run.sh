#!/usr/bin/env bash
# LibriSpeech (OpenSLR 12 and 31), all or any of its parts: BPE units or phones, any objective, a graph with an n-gram.
#
#   bash egs/librispeech/run.sh                                     # downloads mini LibriSpeech (5 h) and uses it
#   bash egs/librispeech/run.sh --parts 960h --lm openslr           # downloads all, and OpenSLR's LMs and lexicon
#   bash egs/librispeech/run.sh --corpus-dir /corpora/LibriSpeech   # uses all parts in this folder
#   bash egs/librispeech/run.sh --corpus-dir /corpora/LibriSpeech --train-parts train-clean-5 --dev-speakers 1737,2136
#
#   --stage N, --stop-stage N   first and last stage: 0 data, 1 features, 2 lang, 3 warmup, 4 train, 5 decode, 6 score,
#                               7 stream, 8 export (default 0 and 8)
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
#   --units bpe|char|phone|biphone|triphone   output units of the model (default bpe); phones in context are tied by
#                               trees that are grown on alignments of the phone system of the same options and CTC, which
#                               stage 2 trains if it is missing
#   --vocab-size N              number of BPE units (default 500)
#   --leaves N                  number of units for biphones and triphones (default 1000)
#   --speeds LIST               speeds of the training audio (default 0.9,1.0,1.1)
#   --lm openslr|DIR            language models and lexicon of OpenSLR 11, or a folder with these files (default: train
#                               n-grams on the transcripts, and take CMUdict)
#   --lm-text "FILE FILE"       more text to train language models on, without --lm (default none)
#   --lm-words N                number of words of the language models: the most frequent ones (default 64000)
#   --lm-prune P                threshold of the pruning of the 3-gram: relative rise of the perplexity (default 1e-7)
#   --neural "OPTIONS"          options of `asrtool lm train-neural` for --decode neural (default "--epochs 2")
#   --objective ctc|mmi|ce      training objective (default ctc); mmi and ce start from a CTC system
#   --from EXP                  system that mmi and ce start from (default the CTC system of the same options); with
#                               `--from none` mmi starts from random weights
#   --conf FILE                 configuration of the model and the training (default conf/transformer_small.yaml)
#   --seed N                    seed of the training (default 1)
#   --warmup-hours H            hours of audio of the warmup on one machine before the training (default 0: no warmup)
#   --ranks N                   training processes on this machine, one per GPU (default 1)
#   --launcher CMD              command that starts stage 4 on all machines, e.g. "srun -N 4 torchrun --nnodes 4 ..."
#   --decode "METHOD ..."       of greedy, prefix, graph, rescored, neural and adapted, see local/decode.sh of the checkout
#                               (default the first four)
#   --decoding-weights FILE     decoding weights of the graph search, from `asrtool tune` (default: tuned on dev)
#   --work DIR                  folder for data/ and exp/ (default the folder of this recipe)
#   --jobs N                    processes of data preparation and graph search (default 2)
#   --force true                run stages again although they are done and unchanged
set -euo pipefail
cd "$(dirname "$0")"
recipe=$PWD

stage=0 stop_stage=8 parts="" corpus_dir="" mirror=https://www.openslr.org/resources
train_parts="" dev_parts="" dev_speakers="" test_speakers="" test_parts="" units=bpe vocab_size=500 leaves=1000 speeds=0.9,1.0,1.1
lm="" lm_text="" lm_words=64000 lm_prune=1e-7 neural="--epochs 2"
objective=ctc from="" conf=$recipe/conf/transformer_small.yaml seed=1 warmup_hours=0 ranks=1 launcher=""
decode="greedy prefix graph rescored" decoding_weights="" work=$recipe jobs=2 force=false
options="stage stop_stage parts corpus_dir mirror train_parts dev_parts dev_speakers test_speakers test_parts units"
options+=" vocab_size leaves speeds lm lm_text lm_words lm_prune neural objective from conf seed warmup_hours ranks launcher"
options+=" decode decoding_weights work jobs force"
path_options="corpus_dir lm conf from decoding_weights work" # become absolute
. ../../local/parse_options.sh
. ../../local/stages.sh
. ../../local/train.sh
. ../../local/decode.sh
. ./local/lang.sh

if [ -f "$(absolute_path "$dev_speakers")" ]; then dev_speakers=$(absolute_path "$dev_speakers"); fi
if [ -f "$(absolute_path "$test_speakers")" ]; then test_speakers=$(absolute_path "$test_speakers"); fi
setup_stages "$stage" "$stop_stage" "$force"
require_choice --units "$units" bpe char phone biphone triphone
check_training_options "$objective" "$from" "$warmup_hours" "$ranks" "$conf"
check_decode_options "$decode" "$decoding_weights" greedy prefix graph rescored neural adapted
[ -z "$lm" ] || [ -z "$lm_text" ] || option_error "--lm-text is for training LMs, and --lm gives LMs: choose one"
lm_folder=$lm
if [ "$lm" = openslr ]; then lm_folder=download/lm; elif [ -n "$lm" ]; then check_lm_folder "$lm"; fi
mapfile -t lm_texts < <(text_paths "$lm_text")
texts=(data/train.jsonl.gz "${lm_texts[@]}") # to train language models on
. ../../local/path.sh
mkdir -p "$work" && cd "$work"

lang=$(lang_folder "$units" bpe)
exp=$(experiment_folder "$conf" "$units" bpe "$objective" "$seed")
start=$(starting_system "$from" "$conf" "$units" bpe "$objective" "$seed")
weights=${decoding_weights:-$exp/decode/dev/decoding_weights.json}
phone_system=$(experiment_folder "$conf" phone bpe ctc "$seed")
aligned=data/aligned/$(basename "$exp")
final_conf=$(final_config "$conf" "$objective")
train_options=(--set seed="$seed" --set data.tokenizer="$lang/tokenizer.json" --resume)
if [ "$from" = none ]; then train_options+=(--set objective.kind=mmi); fi
warmup_weights=()
if [[ $warmup_hours =~ [1-9] ]]; then warmup_weights=(--init-from "$start/warmup/checkpoints/warmup.pt"); fi

if begin_stage 0 "prepare data (${corpus_dir:-a download of ${parts:-mini} LibriSpeech})" \
    "$corpus_dir" "$parts" "$train_parts" "$dev_parts" "$dev_speakers" "$test_speakers" "$test_parts"; then
    bash "$recipe/local/data.sh" --corpus-dir "$corpus_dir" --mirror "$mirror" --sums "$recipe/local/md5sum.txt" \
        --parts "$parts" --train-parts "$train_parts" --dev-parts "$dev_parts" --test-parts "$test_parts" \
        --dev-speakers "$dev_speakers" --test-speakers "$test_speakers"
    if [ "$lm" = openslr ]; then download_lm "$mirror" "$recipe/local/md5sum.txt" "$lm_folder"; fi
    finish_stage "data/*.jsonl.gz"
fi
sets=$(cat data/scored_sets 2>/dev/null || true) # dev and the test sets

if begin_stage 1 "compute features (80-bin log-mel, the training set at speeds $speeds)" "$speeds"; then
    asrtool features data/train.jsonl.gz data/fbank/train.jsonl.gz --speeds "$speeds" --jobs "$jobs"
    for name in $sets; do asrtool features data/$name.jsonl.gz data/fbank/$name.jsonl.gz --jobs "$jobs"; done
    finish_stage "data/fbank/*.jsonl.gz"
fi

if begin_stage 2 "make ${units/bpe/$vocab_size BPE} units, a word 3-gram and 4-gram, and the decoding graph" \
    "$units" "$vocab_size" "$leaves" "$lm" "$lm_words" "$lm_prune" "${lm_texts[@]}"; then
    if [ "$lm" = openslr ]; then download_lm "$mirror" "$recipe/local/md5sum.txt" "$lm_folder"; fi
    make_lms "$lang" "$lm_folder" "$lm_words" "$lm_prune" "${texts[@]}" # $lang/graph.arpa.gz and $lang/rescore.npz
    lexicon=()
    if [[ $units == *phone ]]; then
        make_lexicon "$lang" "$lm_folder" "$lm_words" "${texts[@]}" # $lang/lexicon.txt
        lexicon=(--lexicon "$lang/lexicon.txt")
    fi
    if [[ $units == *iphone ]]; then
        asrtool tokenizer data/train.jsonl.gz "$lang/phones.json" --type phone "${lexicon[@]}"
        if [ ! -f "$phone_system/checkpoints/averaged.pt" ]; then
            run_machines "$launcher" "$ranks" train "$conf" --exp "$phone_system" --set seed="$seed" \
                --set data.tokenizer="$lang/phones.json" --resume
        fi
        grow_units "$lang" "$units" "$leaves" "$phone_system" "$(stage_fingerprint)"
    else
        asrtool tokenizer data/train.jsonl.gz "$lang/tokenizer.json" --type "$units" --vocab-size "$vocab_size" \
            "${lexicon[@]}"
    fi
    asrtool lm perplexity "$lang/graph.arpa.gz" data/dev.jsonl.gz
    asrtool lm perplexity "$lang/rescore.npz" data/dev.jsonl.gz
    asrtool graph "$lang/graph" --tokenizer "$lang/tokenizer.json" --lm "$lang/graph.arpa.gz" "${lexicon[@]}"
    finish_stage "$lang/tokenizer.json and $lang/graph"
fi

if [[ $warmup_hours =~ [1-9] ]] && begin_stage 3 "warmup on one machine ($warmup_hours hours of audio)" \
    "$conf" "$seed" "$warmup_hours"; then
    run_ranks "$ranks" train "$conf" --exp "$start/warmup" "${train_options[@]}" \
        --phase warmup --warmup-hours "$warmup_hours"
    finish_stage "$start/warmup/checkpoints/warmup.pt"
fi

if begin_stage 4 "train with objective $objective ($(basename "$conf"), seed $seed${from:+, from $from})" \
    "$conf" "$final_conf" "$seed" "$objective" "from $start"; then
    if [ "$start" = "$exp" ] || [ ! -f "$start/checkpoints/averaged.pt" ]; then
        run_machines "$launcher" "$ranks" train "$conf" --exp "$start" "${train_options[@]}" "${warmup_weights[@]}"
    fi
    if [ "$objective" = mmi ] && [ "$start" != "$exp" ]; then
        run_machines "$launcher" "$ranks" train "$final_conf" --exp "$exp" "${train_options[@]}" \
            --set objective.kind=mmi --init-from "$start/checkpoints/averaged.pt"
    elif [ "$objective" = ce ]; then
        align_once "$start" "$aligned" "$(stage_fingerprint)" data/fbank/train.jsonl.gz data/fbank/dev.jsonl.gz
        run_machines "$launcher" "$ranks" train "$final_conf" --exp "$exp" "${train_options[@]}" \
            --set objective.kind=ce --set data.train="$aligned/train.jsonl.gz" --set data.dev="$aligned/dev.jsonl.gz"
    fi
    finish_stage "$exp/checkpoints/averaged.pt and $exp/loss.png"
fi

features=() audio=()
for name in $sets; do features+=("data/fbank/$name.jsonl.gz") audio+=("data/$name.jsonl.gz"); done
if begin_stage 5 "decode (${decode// /, })" "$exp" "$decode" "$decoding_weights"; then
    if [[ $decode =~ graph|rescored && -z $decoding_weights ]]; then
        tune_decoding "$exp" "$lang" "$jobs" data/fbank/dev.jsonl.gz
    fi
    if [[ $decode == *neural* && ! -f $lang/neural.pt ]]; then # remove it to train it again, by other options --neural
        run_ranks "$ranks" lm train-neural "${texts[@]}" "$lang/neural.pt" --case upper --dev data/dev.jsonl.gz $neural
        asrtool lm perplexity "$lang/neural.pt" data/dev.jsonl.gz --ngram "$lang/rescore.npz"
    fi
    decode_sets "$exp" "$lang" "$weights" "$jobs" "$ranks" "$decode" "${features[@]}"
    finish_stage "$exp/decode/*/*/hyps.jsonl"
fi

if begin_stage 6 "score (error rates with 95 % intervals)" "$exp"; then
    score_sets "$exp" "$decode" $sets | tee "$exp/results.txt"
    finish_stage "$exp/results.txt and $exp/decode/*/*/{wer.json,report.txt,alignments.txt,alignments.jsonl}"
fi

if begin_stage 7 "stream chunk by chunk from audio (${decode// /, })" "$exp" "$decode"; then
    stream_sets "$exp" "$lang" "$weights" "$decode" "${audio[@]}" # nothing, if the model needs whole utterances
    finish_stage "$exp/stream/*/*/stream.json"
fi

if begin_stage 8 "export to ONNX, and write a table of all systems in exp/" "$exp"; then
    asrtool export "$exp" "$exp/export" --cuts data/fbank/dev.jsonl.gz
    scored=(exp/*/results.txt)
    asrtool report "${scored[@]%/results.txt}" --out RESULTS.md
    finish_stage "$exp/export and RESULTS.md"
fi
