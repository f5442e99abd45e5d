#!/usr/bin/env bash
# Source this after train.sh. It defines what stage 2 of the recipes makes in the folder $lang: language models, lexicon
# and units. The functions read the options of the recipe, and `texts`, the files to train language models on: the
# training transcripts, and the texts of --lm-text.

silence_unit=SIL # unit of silence, which --topology hmm needs

# check_lm_options: exits with an error if an option of the language models is wrong; sets `lm_texts`,
# the paths in --lm-text.
check_lm_options() {
    local source
    [ "$lm_order" -le 5 ] && [ "$rescore_order" -le 5 ] || option_error "--lm-order and --rescore-order are at most 5"
    [[ $lm_prune =~ ^[0-9.]*(e-?[0-9]+)?$ ]] || option_error "--lm-prune is a number, not '$lm_prune'"
    if [[ $decode =~ graph|rescored|neural ]] && ! has_lm; then
        option_error "--decode '$decode' needs a graph; with --lm-order 0 there is none"
    fi
    if [[ $decode =~ rescored|neural && $rescore_order = 0 ]]; then
        option_error "--decode '$decode' needs an n-gram that rescores lattices: give --rescore-order 4"
    fi
    mapfile -t lm_texts < <(text_paths "$lm_text")
    if [ ${#lm_texts[@]} -gt 0 ]; then lm_text=${lm_texts[*]}; fi
    if [ "$stages_list" = false ] && [ "$stages_first" -le 2 ] && [ "$stages_last" -ge 2 ]; then
        for source in "${lm_texts[@]}"; do
            [ -f "$source" ] || option_error "--lm-text: no such file: $source"
        done
    fi
    lexicon=$(lexicon_paths "$lexicon" "$options_called_from")
    if [[ $units != *phone ]]; then return 0; fi
    while IFS= read -r source; do
        [ "$source" = cmudict ] || [ -f "$source" ] || option_error "--lexicon: no such file: $source"
    done < <(lexicon_sources "$lexicon")
}

# check_hmm_options: exits with an error if an option does not fit --topology hmm. Prefix search is for models with a
# blank, so that it is left out of the recipe's default of --decode.
check_hmm_options() {
    local methods
    if [[ $units != *phone ]]; then
        option_error "--topology hmm needs a unit of silence: --units phone, biphone or triphone"
    fi
    if [ "$decode" = "${defaults[decode]}" ]; then
        methods=" $decode "
        decode=$(echo ${methods/ prefix / }) # single spaces
        defaults[decode]=$decode
    fi
    if [[ " $decode " == *" prefix "* ]]; then
        option_error "--decode prefix is for models with a blank, and --topology hmm has none"
    fi
}

# has_lm: succeeds if the recipe has a language model, and so a decoding graph.
has_lm() { [ "$lm_order" != 0 ]; }

# text_paths "FILE FILE": prints the absolute paths of the files of --lm-text, one a line. The name of a single file may
# contain spaces.
text_paths() {
    local text
    if [ -f "$(absolute_path "$1")" ]; then
        absolute_path "$1"
    else
        for text in $1; do absolute_path "$text"; done
    fi
}

# lexicon_sources LEXICON: prints the sources in the value of --lexicon, one a line.
lexicon_sources() { printf '%s\n' "$1" | tr , '\n' | sed '/^$/d'; }

# lexicon_paths LEXICON FOLDER: prints the value of --lexicon with absolute paths. Relative ones start at FOLDER or, if
# the file exists only there, at the folder of the recipe.
lexicon_paths() {
    local source
    lexicon_sources "$1" | while IFS= read -r source; do
        if [ "$source" = cmudict ] || [[ $source == /* ]]; then
            echo "$source"
        elif [ -e "$2/$source" ] || [ ! -e "$recipe/$source" ]; then
            realpath -m "$2/$source"
        else
            realpath -m "$recipe/$source"
        fi
    done | paste -sd,
}

# lang_title: prints the title of stage 2.
lang_title() {
    local made="${units/bpe/$vocab_size BPE} units"
    if [ "$topology" = hmm ]; then made+=" with silence"; fi
    if [ "$rescore_order" != 0 ]; then
        echo "make $made, a word $lm_order-gram and $rescore_order-gram, and the decoding graph"
    elif has_lm; then
        echo "make $made, a word $lm_order-gram and the decoding graph"
    else
        echo "make $made"
    fi
}

# train_lms: trains $lang/graph.arpa.gz, the n-gram of the decoding graph, and $lang/rescore.npz, the n-gram that
# rescores its lattices, on $texts with the --lm-words most frequent words.
train_lms() {
    local top=() pruning=()
    if [ "$lm_words" != 0 ]; then top=(--top "$lm_words"); fi
    if [ -n "$lm_prune" ]; then pruning=(--prune "$lm_prune"); fi
    rm -f "$lang/graph.arpa.gz" # it may be a link
    asrtool lm train "${texts[@]}" "$lang/graph.arpa.gz" --order "$lm_order" --case "$case" "${top[@]}" "${pruning[@]}"
    if [ "$rescore_order" != 0 ]; then
        asrtool lm train "${texts[@]}" "$lang/rescore.npz" --order "$rescore_order" --case "$case" "${top[@]}"
    fi
}

# print_perplexities: prints the perplexities of the n-grams on dev.
print_perplexities() {
    if ! has_dev; then return 0; fi
    asrtool lm perplexity "$lang/graph.arpa.gz" data/dev.jsonl.gz
    if [ "$rescore_order" != 0 ]; then asrtool lm perplexity "$lang/rescore.npz" data/dev.jsonl.gz; fi
}

# train_neural_lm: trains $lang/neural.pt on $texts, by the options $neural.
train_neural_lm() {
    local dev=()
    if has_dev; then dev=(--dev data/dev.jsonl.gz); fi
    run_ranks "$ranks" lm train-neural "${texts[@]}" "$lang/neural.pt" --case "$case" "${dev[@]}" $neural
    if has_dev; then asrtool lm perplexity "$lang/neural.pt" data/dev.jsonl.gz --ngram "$lang/rescore.npz"; fi
}

# build_lexicon: makes $lang/lexicon.txt with pronunciations from the sources of --lexicon. It also has the words of
# dev, for the dev loss; the graph has the words of the language model.
build_lexicon() {
    local dev=() options=(--case "$case" --stress "$stress" --unknown "$unknown") source
    if has_dev; then dev=(data/dev.jsonl.gz); fi
    if [ "$lm_words" != 0 ]; then options+=(--top "$lm_words"); fi
    while IFS= read -r source; do options+=(--source "$source"); done < <(lexicon_sources "$lexicon")
    asrtool lexicon "${dev[@]}" "${texts[@]}" "$lang/lexicon.txt" "${options[@]}"
}

# normalise_lm_texts: applies the rules $text_rules of the recipe to the texts of --lm-text.
normalise_lm_texts() {
    local number
    for ((number = 0; number < ${#lm_texts[@]}; number++)); do
        asrtool normalise "${lm_texts[number]}" "${texts[number + 1]}" --rules "$recipe/$text_rules"
    done
}

# make_units: makes $lang/tokenizer.json from the transcripts of $unit_sets, with $phone_options for phones.
make_units() {
    local manifests=() name options=("${phone_options[@]}")
    for name in $unit_sets; do manifests+=("data/$name.jsonl.gz"); done
    if [ "$units" = bpe ]; then options+=(--vocab-size "$vocab_size"); fi
    asrtool tokenizer "${manifests[@]}" "$lang/tokenizer.json" --type "$units" "${options[@]}"
}

# weighs_pronunciations: succeeds if the graph has probabilities of pronunciations.
weighs_pronunciations() { [[ $units == *phone && $pronunciation_hours =~ [1-9] ]] && has_lm; }

# weigh_pronunciations: writes the graph of $lang with probabilities of pronunciations to $graph. They are counted in an
# alignment of at most --pronunciation-hours of the training set by the system itself, or by the phone system if units
# are phones in context.
weigh_pronunciations() {
    local folder=$exp/pronunciations aligned=$lang/aligned/train.jsonl.gz
    mkdir -p "$folder"
    if [ "$units" = phone ]; then
        aligned=$folder/aligned.jsonl.gz
        asrtool subset data/train.jsonl.gz "$folder/cuts.jsonl.gz" --max-hours "$pronunciation_hours"
        align_manifest "$exp" "$folder/cuts.jsonl.gz" "$aligned"
    fi
    awk '{ print $1 }' "$lang/lexicon.txt" >"$folder/words.txt"
    asrtool lexicon "$folder/words.txt" "$folder/lexicon.txt" --source "$lang/lexicon.txt" --aligned "$aligned"
    asrtool graph "$graph" --tokenizer "$lang/tokenizer.json" --lm "$lang/graph.arpa.gz" --topology "$topology" \
        --lexicon "$folder/lexicon.txt"
}

# make_units_in_context: makes $lang/tokenizer.json, at most --leaves units of phones in context, by trees grown on
# alignments of the training set by the phone system, which is trained if it is missing.
make_units_in_context() {
    asrtool tokenizer data/train.jsonl.gz "$lang/phones.json" --type phone "${phone_options[@]}"
    if [ ! -f "$phone_system/checkpoints/averaged.pt" ]; then
        run_machines "$launcher" "$ranks" train "$conf" --exp "$phone_system" "${config_options[@]}" \
            --set data.tokenizer="$lang/phones.json" --set objective.kind=ctc --resume
    fi
    python3 "$driver/same_units.py" "$phone_system/tokenizer.json" "$lang/phones.json" ||
        option_error "$phone_system was trained with other phones than --lexicon gives now: give another --tag"
    stage_reads "$phone_system/checkpoints/averaged.pt"
    align_once "$phone_system" "$lang/aligned" "$stages_fingerprint" \
        "$features/train.jsonl.gz" "$lang/aligned/train.jsonl.gz"
    asrtool tree "$lang/aligned/train.jsonl.gz" "$lang/tokenizer.json" --tokenizer "$phone_system/tokenizer.json" \
        --units "$units" --leaves "$leaves"
}
