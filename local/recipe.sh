#!/usr/bin/env bash
# The driver of all recipes: the stages 0 to 8 and their options, defined once. A recipe sources it in its own folder,
# sets the defaults of its corpus, and calls `run_recipe "$@"`:
#
#   CDPATH="" cd -- "$(dirname "$0")"
#   . ../../local/recipe.sh
#   corpus_dir=/corpora/mine data_options=corpus_dir path_options+=" corpus_dir" # options of local/data.sh
#   conf=conf/train.yaml units=bpe vocab_size=300                               # defaults of shared options
#   run_recipe "$@"
#
# Stage 0 is the recipe's own: local/data.sh runs in the work folder, with the options that $data_options names, and
# writes data/train.jsonl.gz, data/dev.jsonl.gz and a manifest for each test set, and data/scored_sets, the names of the
# sets to decode and score ("dev test"). A corpus without a dev set leaves dev out there.
#
# A recipe may define these functions after it has sourced the driver, in place of the driver's own:
#
#   check_recipe_options   checks the recipe's own options, before any stage; may set $data_title and $lang_settings
#   prepare_data           what stage 0 runs (default: run_data_script, which calls local/data.sh)
#   make_lms               writes $lang/graph.arpa.gz and $lang/rescore.npz (default: train_lms)
#   make_lexicon           writes $lang/lexicon.txt (default: build_lexicon, from --lexicon)

recipe=$PWD # the folder of the recipe
driver=$(CDPATH="" cd -- "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export recipe
. "$driver/stages.sh"
. "$driver/train.sh"
. "$driver/decode.sh"
. "$driver/lang.sh"
. "$driver/recipe_stages.sh"

# What a recipe says about its stage 0.
data_options=""              # options of run.sh that local/data.sh takes; all are settings of stage 0, but jobs and mirror
data_files=""                # files of the recipe, relative to its folder, that stage 0 depends on
data_title="prepare data"    # title of stage 0
recipe_options=""            # further options of run.sh
unit_sets=train              # sets whose transcripts the units are made from
text_rules=""                # file of the recipe: the rules by which `asrtool normalise` changes the texts of --lm-text
lang_settings=()             # further settings of stage 2

# Defaults of the shared options, which a recipe may change before run_recipe. print_shared_options explains them.
stage=0 stop_stage=6 work=$recipe jobs=2 force=false list=false
conf=conf/train.yaml set="" steps="" seed=1 tag="" objective=ctc topology=ctc from="" fmllr=false
warmup_hours=0 ranks=1 launcher=""
speeds=0.9,1.0,1.1
units=bpe vocab_size=500 leaves=1000 lexicon=cmudict unknown=g2p stress=keep case=keep
lm_text="" lm_order=3 lm_words=64000 lm_prune="" rescore_order=0 neural="--epochs 2" pronunciation_hours=20
decode="greedy prefix graph" decoding_weights="" precision=auto
shared_options="stage stop_stage units vocab_size leaves lexicon unknown stress case speeds lm_text lm_order lm_words"
shared_options+=" lm_prune rescore_order neural pronunciation_hours objective topology from fmllr conf set steps seed"
shared_options+=" tag warmup_hours ranks launcher decode decoding_weights precision work jobs force list"
path_options="conf from decoding_weights work"

# print_shared_options: prints the help of the options that all recipes have, with the defaults of this recipe.
print_shared_options() {
    cat <<HELP

Options of all recipes:

  --stage N, --stop-stage N   first and last stage: 0 data, 1 features, 2 lang, 3 warmup, 4 train, 5 decode, 6 score,
                              7 stream, 8 export (default $stage and $stop_stage)
  --units TYPE                output units of the model: word, char, bpe, phone, biphone or triphone (default $units);
                              phones in context are tied by trees that are grown on alignments of the phone system of
                              the same options and CTC, which stage 2 trains if it is missing
  --vocab-size N              number of BPE units (default $vocab_size)
  --leaves N                  number of units for biphones and triphones (default $leaves)
  --lexicon FILE[,FILE]       pronunciations for phones: lexicon files, cmudict (American English), or both; the first
                              with a word counts. Kaldi's lexicon.txt and lexiconp.txt are read, too
                              (default ${lexicon#"$recipe"/})
  --unknown TREATMENT         words without a pronunciation: drop, g2p or characters (default $unknown)
  --stress keep|drop          stress digits of the vowels (AH0, AH1) in the files of --lexicon; cmudict has none
                              (default $stress)
  --case keep|upper|lower     case of --lm-text and --lexicon, as the transcripts have (default $case)
  --speeds LIST               speeds of the training audio, if features are stored (default $speeds)
  --lm-text "FILE FILE"       more text to train language models on (default ${lm_text:-none})
  --lm-order N                order of the n-gram of the graph (default $lm_order); 0: no language model and no graph
  --lm-words N                number of words of the language models, the most frequent ones (default $lm_words); 0: all
  --lm-prune P                pruning threshold of the n-gram of the graph (default ${lm_prune:-no pruning})
  --rescore-order N           order of the n-gram that rescores lattices (default $rescore_order); 0: none
  --neural "OPTIONS"          options of \`asrtool lm train-neural\` for --decode neural (default "$neural")
  --pronunciation-hours H     hours of training audio that are aligned after the training, to count how often the words
                              of a lexicon have each of their pronunciations, for the graph (default $pronunciation_hours); 0: all
                              pronunciations of a word cost the same
  --objective ctc|mmi|ce      training objective (default $objective); mmi and ce start from a CTC system
  --topology ctc|hmm          topology of the units (default $topology); hmm: two states for each unit and no blank, as in
                              Kaldi's chain models, for phones, biphones and triphones, which get a unit of silence.
                              Its lang and experiment folders have hmm in their names
  --from EXP                  trained system that mmi and ce start from: an experiment or a pack (default the CTC system
                              of the same options, which is trained if it is missing); with \`--from none\` mmi starts
                              from random weights
  --fmllr true|false          true: train on features that are transformed to an average speaker, by a GMM that
                              is trained first; units are phones, and \`fmllr\` in --decode is the pass with transforms
                              (default $fmllr)
  --conf FILE                 configuration of the model and the training (default ${conf#"$recipe"/})
  --set "KEY=VALUE ..."       keys of the configuration to change, with values that have no spaces (default ${set:-none})
  --steps N                   number of training steps, instead of the configuration's training.max_steps; a warmup of the
                              learning rate that is longer than half of them becomes a tenth of them
  --seed N                    seed of the training (default $seed)
  --tag NAME                  ending of the name of the experiment folder, to keep trainings with different --set
  --warmup-hours H            hours of audio of the warmup on one machine before the training (default $warmup_hours)
  --ranks N                   training processes on this machine, one per GPU (default $ranks)
  --launcher CMD              command that starts stage 4 on all machines, e.g. "srun -N 4 torchrun --nnodes 4 ..."
  --decode "METHOD ..."       of greedy, prefix, graph, rescored, neural, fmllr and adapted, see local/decode.sh of the checkout
                              (default $decode)
  --decoding-weights FILE     decoding weights of the graph search, from \`asrtool tune\` (default: tuned on dev, if the
                              recipe has a dev set)
  --precision P               precision of the model in recognition and alignment: fp32, bf16, or auto for bf16 where the
                              processor supports it (default $precision); training has its own, training.precision
  --work DIR                  folder for data/ and exp/ (default the folder of this recipe)
  --jobs N                    processes of data preparation and graph search (default $jobs)
  --force true                run stages again although they are done and unchanged
  --list true                 run nothing: print the folders, the overrides of the configuration, and the inputs and the
                              state of each stage, separated by tabs
HELP
}

# run_recipe OPTION...: runs the stages that the command line asks for.
run_recipe() {
    local default_units=$units
    declare -A defaults
    options="$data_options $recipe_options $shared_options" # the names that parse_options.sh accepts
    options=$(printf '%s\n' $options | awk '!seen[$0]++' | xargs)
    remember_defaults
    . "$driver/parse_options.sh"
    check_options
    check_recipe_options
    . "$driver/path.sh"
    enter_work_folder
    read_config
    name_folders "$default_units"
    if [ "$list" = true ]; then
        print_folders
    else
        lock_work_folder shared
        write_options
    fi
    stage_data
    stage_features
    stage_lang
    stage_warmup
    stage_train
    stage_decode
    stage_score
    stage_stream
    stage_export
}

# remember_defaults: makes default paths absolute, since they are relative to the recipe, and fills `defaults`.
remember_defaults() {
    local name
    for name in $path_options; do
        if [[ ! ${!name} =~ ^(none|openslr|/.*|)$ ]]; then printf -v "$name" %s "$recipe/${!name}"; fi
    done
    lexicon=$(lexicon_paths "$lexicon" "$recipe")
    for name in $options; do defaults[$name]=${!name}; done
}

# What a recipe may define again.
check_recipe_options() { :; }
prepare_data() { run_data_script; }
make_lms() { train_lms; }
make_lexicon() { build_lexicon; }
print_published() { :; } # error rates of others, to compare with

# check_options: exits with an error if a shared option is wrong, and reads the lists in options.
check_options() {
    local option override
    for option in decode set neural launcher; do printf -v "$option" %s "$(single_spaces "${!option}")"; done
    setup_stages "$stage" "$stop_stage" "$force" "$list"
    require_choice --units "$units" word char bpe phone biphone triphone
    require_choice --case "$case" keep upper lower
    require_choice --unknown "$unknown" drop g2p characters
    require_choice --stress "$stress" keep drop
    require_choice --precision "$precision" fp32 bf16 auto
    require_choice --topology "$topology" ctc hmm
    if [ "$topology" = hmm ]; then check_hmm_options; fi
    check_training_options "$objective" "$from" "$warmup_hours" "$ranks" "$conf"
    check_decode_options "$decode" "$decoding_weights" greedy prefix graph rescored neural fmllr adapted
    require_choice --fmllr "$fmllr" true false
    if [ "$fmllr" = true ] && [[ $units != *phone ]]; then
        option_error "--fmllr true needs pronunciations: --units phone, biphone or triphone"
    fi
    if [ "$fmllr" = false ] && [[ " $decode " == *" fmllr "* ]]; then
        option_error "--decode fmllr needs a model that was trained with --fmllr true"
    fi
    for option in vocab_size leaves lm_order lm_words rescore_order jobs; do
        is_number "${!option}" || option_error "--${option//_/-} is a number below 1000000000, not '${!option}'"
    done
    [[ $seed =~ ^(0|[1-9][0-9]*)$ ]] || option_error "--seed is a number, not '$seed'"
    [[ $pronunciation_hours =~ ^[0-9]+(\.[0-9]+)?$ ]] ||
        option_error "--pronunciation-hours is a number of hours, not '$pronunciation_hours'"
    if [ -n "$steps" ] && ! is_number "$steps"; then
        option_error "--steps is a number of training steps, below 1000000000, not '$steps'"
    fi
    [[ $tag =~ ^[[:alnum:]._-]*$ ]] || option_error "--tag is part of a folder's name, not '$tag'"
    [[ ! $tag =~ ^(hmm|fmllr)(_|$) ]] ||
        option_error "--tag '$tag' begins as the names of folders of --topology hmm or --fmllr true do; give another one"
    read -r -a overrides <<<"$set"
    for override in "${overrides[@]}"; do
        [[ $override == *=* ]] || option_error "--set takes \"KEY=VALUE KEY=VALUE\" without other spaces, not '$override'"
        [[ $override != seed=* ]] || option_error "--set $override: the folder of the training is named by --seed; give it"
    done
    if [ "$topology" != ctc ]; then overrides+=("objective.topology=$topology"); fi
    check_lm_options
}

# is_number TEXT: succeeds if TEXT is a whole number that the shell reads as it is written: not one with a leading zero,
# which would be octal, nor one that is too large.
is_number() { [[ $1 =~ ^(0|[1-9][0-9]{0,8})$ ]]; }

# single_spaces TEXT: prints the words of TEXT with a space between two of them. White space may be tabs and new lines.
single_spaces() {
    local words
    read -r -d '' -a words <<<"$1" || true # read fails at the end of TEXT
    printf '%s\n' "${words[*]}"
}

# enter_work_folder: changes into the work folder. With --list, it must exist already; else it must be writable.
enter_work_folder() {
    local problem
    if [ "$list" = true ] && [ ! -d "$work" ]; then option_error "--list: no such folder: $work"; fi
    problem=$(mkdir -p -- "$work" 2>&1) || option_error "--work: ${problem#mkdir: }"
    cd "$work"
    [ "$list" = true ] || [ -w . ] || option_error "--work: nothing can be written into $work; give another folder"
}

# read_config: reads what the stages need of the configuration, and adds --steps to `overrides`. If these are few, a
# tenth of them are the warmup of the learning rate, unless --set has another number. Exits with an error if the
# configuration has topology hmm without --topology hmm, since units and graph would not fit, or another objective than
# --objective and the default.
read_config() {
    local changes=() override values warmup config_topology config_objective
    for override in "${overrides[@]}"; do changes+=(--set "$override"); done
    if ! values=$(python3 "$driver/config_values.py" "$conf" "${changes[@]}" \
        features.source features.num_bins training.warmup_steps objective.topology objective.kind); then
        trap - EXIT # its error line is the last line
        exit 2
    fi
    read -r feature_source num_bins warmup config_topology config_objective <<<"${values//$'\n'/ }"
    if [ "$config_topology" = hmm ] && [ "$topology" != hmm ]; then
        option_error "the configuration has objective.topology hmm; give --topology hmm, for units and a graph that fit"
    fi
    if [ "$config_objective" != ctc ] && [ "$config_objective" != "$objective" ]; then
        option_error "the configuration or --set has objective.kind $config_objective, and --objective is $objective;" \
            "give --objective $config_objective, or leave objective.kind out"
    fi
    if [ -z "$steps" ]; then return 0; fi
    overrides+=("training.max_steps=$steps")
    if [[ $warmup -ge $((steps / 2)) && $set != *training.warmup_steps=* ]]; then
        overrides+=("training.warmup_steps=$((steps > 1 ? (steps + 9) / 10 : 0))")
    fi
}

# name_folders DEFAULT_UNITS: sets the folders of this system, the paths of its manifests, and the options of trainings.
name_folders() {
    local system=("$conf" "$units" "$1") override tag=$tag
    if [ "$topology" != ctc ]; then tag=$topology${tag:+_$tag}; fi
    phone_system=$(experiment_folder "$conf" phone "$1" ctc "$seed" "$tag")
    if [ "$fmllr" = true ]; then tag=fmllr${tag:+_$tag}; fi
    lang=$(lang_folder "$units" "$1" "$topology")
    fmllr_model=exp/fmllr${lang#data/lang} # the GMM of the speakers' transforms, with the phones of $lang
    exp=$(experiment_folder "${system[@]}" "$objective" "$seed" "$tag")
    stages_lang=$(basename "$lang")
    stages_experiment=$(basename "$exp")
    start=$(starting_system "$from" "${system[@]}" "$objective" "$seed" "$tag") # the system that mmi and ce start from
    graph=$lang/graph
    if weighs_pronunciations; then graph=$exp/graph; fi
    weights=${decoding_weights:-$exp/decode/dev/decoding_weights.json}
    aligned=data/aligned/$(basename "$exp") # manifests with alignments, for ce
    final_conf=$(final_config "$conf" "$objective") # of the training with mmi or ce that follows CTC
    config_options=(--set seed="$seed")
    for override in "${overrides[@]}"; do config_options+=(--set "$override"); done
    train_options=("${config_options[@]}" --set data.tokenizer="$lang/tokenizer.json" --resume)
    if [ "$fmllr" = true ]; then train_options+=(--set data.speaker_transforms="$fmllr_model/train.pt"); fi
    start_options=("${train_options[@]}" --set objective.kind=ctc) # of the training of $start
    if [ "$from" = none ]; then start_options=("${train_options[@]}" --set objective.kind=mmi); fi
    warmup_weights=()
    if [[ $warmup_hours =~ [1-9] ]]; then warmup_weights=(--init-from "$start/warmup/checkpoints/warmup.pt"); fi
    name_texts
    features=data # the folder of the manifests to train on and to decode
    if [ "$feature_source" = stored ]; then features=data/fbank; fi
}

# name_texts: sets `texts`, the files to train language models on, which normalise_lm_texts writes with $text_rules.
name_texts() {
    local number
    texts=(data/train.jsonl.gz "${lm_texts[@]}")
    if [ -z "$text_rules" ]; then return 0; fi
    for ((number = 1; number <= ${#lm_texts[@]}; number++)); do texts[number]=$lang/lm_text_$number.txt; done
}

# print_folders: prints the folders and the configuration of this system, for --list; the overrides of the configuration
# that trainings get; and the last stage to run.
print_folders() {
    local option
    printf 'folder\t%s\t%s\n' lang "$lang" exp "$exp" start "$start" conf "$conf"
    for option in "${start_options[@]}"; do
        if [[ $option != --* ]]; then printf 'override\t%s\n' "$option"; fi
    done
    printf 'stop\t%s\n' "$stop_stage"
}

# write_options: records the options that differ from the defaults of the recipe in .done/options, one word a line.
write_options() {
    local name
    mkdir -p .done
    for name in $options; do
        if [[ $name =~ ^(stage|stop_stage|force|list|work)$ || ${!name} == "${defaults[$name]}" ]]; then
            continue
        fi
        printf -- '--%s\n%s\n' "${name//_/-}" "${!name}"
    done >.done/options
}
