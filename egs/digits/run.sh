#!/usr/bin/env bash
# Connected digits, spoken by espeak-ng: from no data to a word error rate, offline, in minutes on two CPU cores.
#
#   bash egs/digits/run.sh                        # all stages
#   bash egs/digits/run.sh --seed 2 --stage 4     # from the training on, with another seed
#
#   --stage N, --stop-stage N   first and last stage: 0 data, 1 features, 2 lang, 3 warmup, 4 train, 5 decode, 6 score
#   --units word|char|phone     output units of the model (default word)
#   --objective ctc|mmi|ce      training objective (default ctc); mmi and ce start from a CTC system
#   --from EXP                  system that mmi and ce start from (default the CTC system of the same options); with
#                               `--from none` mmi starts from random weights
#   --decode "METHOD ..."       of greedy, prefix, graph and adapted, see local/decode.sh (default the first three)
#   --decoding-weights FILE     decoding weights of the graph search, from `asrtool tune` (default: tuned on dev)
#   --conf FILE                 configuration of the model and the training (default conf/transformer.yaml)
#   --seed N                    seed of the training (default 1)
#   --warmup-hours H            hours of audio of the warmup on one machine before the training (default 0: no warmup)
#   --ranks N                   training processes on this machine, one per GPU (default 1)
#   --launcher CMD              command that starts stage 4 on all machines, e.g. "srun -N 4 torchrun --nnodes 4 ..."
#   --train N --dev N --test N  number of utterances of each set (default 3600, 300, 500)
#   --work DIR                  folder for data/ and exp/ (default the folder of this recipe)
#   --jobs N                    processes of data preparation and graph search (default 2)
#   --force true                run stages again although they are done and unchanged
set -euo pipefail
cd "$(dirname "$0")"
recipe=$PWD

stage=0 stop_stage=6 train=3600 dev=300 test=500 work=$recipe jobs=2 force=false
conf=$recipe/conf/transformer.yaml seed=1
units=word objective=ctc from="" decode="greedy prefix graph" decoding_weights="" warmup_hours=0 ranks=1 launcher=""
# parse_options.sh accepts the options in $options and makes those in $path_options absolute paths.
options="stage stop_stage conf seed train dev test work jobs force units objective from decode decoding_weights"
options+=" warmup_hours ranks launcher"
path_options="conf from decoding_weights work"
. ../../local/parse_options.sh
. ../../local/stages.sh
. ../../local/train.sh
. ../../local/decode.sh
setup_stages "$stage" "$stop_stage" "$force"
require_choice --units "$units" word char phone
check_training_options "$objective" "$from" "$warmup_hours" "$ranks" "$conf"
check_decode_options "$decode" "$decoding_weights" greedy prefix graph adapted
. ../../local/path.sh
mkdir -p "$work" && cd "$work"

# Folders and files of this system, see local/train.sh: `start` is the CTC system that mmi and ce start from.
lang=$(lang_folder "$units" word)
exp=$(experiment_folder "$conf" "$units" word "$objective" "$seed")
start=$(starting_system "$from" "$conf" "$units" word "$objective" "$seed")
weights=${decoding_weights:-$exp/decode/dev/decoding_weights.json}
aligned=data/aligned/$(basename "$exp") # training and dev manifests with alignments, for ce
final_conf=$(final_config "$conf" "$objective") # for mmi and ce
train_options=(--set seed="$seed" --set data.tokenizer="$lang/tokenizer.json" --resume)
if [ "$from" = none ]; then train_options+=(--set objective.kind=mmi); fi
warmup_weights=()
if [[ $warmup_hours =~ [1-9] ]]; then warmup_weights=(--init-from "$start/warmup/checkpoints/warmup.pt"); fi

if begin_stage 0 "prepare data (synthetic speech in the layout of LibriSpeech)" "$train $dev $test"; then
    corpus=download/digits_${train}_${dev}_$test
    python3 "$recipe/local/synthesise.py" "$corpus" --train "$train" --dev "$dev" --test "$test" --jobs "$jobs"
    for name in train dev test; do
        asrtool prepare librispeech "$corpus" "data/$name.jsonl.gz" --part "$name-digits"
    done
    finish_stage "data/{train,dev,test}.jsonl.gz"
fi

if begin_stage 1 "compute features (80-bin log-mel, the training set at three speeds)"; then
    asrtool features data/train.jsonl.gz data/fbank/train.jsonl.gz --speeds 0.9,1.0,1.1 --jobs "$jobs"
    for name in dev test; do asrtool features data/$name.jsonl.gz data/fbank/$name.jsonl.gz --jobs "$jobs"; done
    finish_stage "data/fbank/{train,dev,test}.jsonl.gz"
fi

if begin_stage 2 "make $units units, a word bigram and the decoding graph" "$units"; then
    lexicon=()
    if [ "$units" = phone ]; then
        asrtool lexicon data/train.jsonl.gz "$lang/lexicon.txt" --source cmudict --case upper
        lexicon=(--lexicon "$lang/lexicon.txt")
    fi
    asrtool tokenizer data/train.jsonl.gz "$lang/tokenizer.json" --type "$units" "${lexicon[@]}"
    asrtool lm train data/train.jsonl.gz "$lang/bigram.arpa" --order 2
    asrtool graph "$lang/graph" --tokenizer "$lang/tokenizer.json" --lm "$lang/bigram.arpa" "${lexicon[@]}"
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

if begin_stage 5 "decode (${decode// /, })" "$exp" "$decode" "$decoding_weights"; then
    if [[ $decode == *graph* && -z $decoding_weights ]]; then
        tune_decoding "$exp" "$lang" "$jobs" data/fbank/dev.jsonl.gz
    fi
    decode_sets "$exp" "$lang" "$weights" "$jobs" "$ranks" "$decode" data/fbank/dev.jsonl.gz data/fbank/test.jsonl.gz
    finish_stage "$exp/decode/{dev,test}/*/hyps.jsonl"
fi

if begin_stage 6 "score (error rates with 95 % intervals)" "$exp"; then
    score_sets "$exp" "$decode" dev test | tee "$exp/results.txt"
    finish_stage "$exp/results.txt and $exp/decode/*/*/{wer.json,report.txt,alignments.txt,alignments.jsonl}"
fi
