#!/usr/bin/env bash
# Source this after stages.sh, train.sh, decode.sh and lang.sh. It defines the stages 0 to 8 of all recipes, which
# run_recipe (recipe.sh) calls in the work folder, in their order.

# recipe_error MESSAGE...: prints an error line and exits with status 1.
recipe_error() {
    echo "$0: error: $*" >&2
    exit 1
}

# stage_data: stage 0 writes the manifests and the names of the sets to score; sets `sets`, the names of these sets.
stage_data() {
    local settings=() name
    for name in $data_options; do
        if [[ ! $name =~ ^(jobs|mirror)$ ]]; then settings+=("${!name}"); fi
    done
    for name in local/data.sh $data_files; do settings+=("$recipe/$name"); done
    if begin_stage 0 "$data_title" "${settings[@]}"; then
        mkdir -p data
        prepare_data
        for name in data/train.jsonl.gz data/scored_sets; do
            [ -f "$name" ] || recipe_error "stage 0 wrote no $name; $recipe/local/data.sh has to write it"
        done
        finish_stage "data/*.jsonl.gz"
    fi
    sets=$(cat data/scored_sets 2>/dev/null | xargs || true) # single spaces
    if [ "$stages_list" = false ] && [ "$stages_last" -ge 5 ] && [ ! -f data/scored_sets ]; then
        option_error "--stage $stages_first: no data in $PWD, which stage 0 writes: begin with --stage 0"
    fi
}

# run_data_script: runs local/data.sh of the recipe with the options that it takes.
run_data_script() {
    local arguments=() name
    for name in $data_options; do arguments+=("--${name//_/-}" "${!name}"); done
    bash "$recipe/local/data.sh" "${arguments[@]}"
}

# has_dev: succeeds if the recipe has a dev set.
has_dev() { [[ " $sets " == *" dev "* ]]; }

# stage_features: stage 1 stores features, unless the configuration has them computed on the fly. Keeps what identifies
# the data and the features, for stage_lang.
stage_features() {
    local name
    data_fingerprint=$stages_fingerprint
    if [ "$feature_source" != stored ]; then return 0; fi
    local options=(--num-bins "$num_bins" --jobs "$jobs")
    if begin_stage 1 "compute features ($num_bins-bin log-mel, the training set at speeds $speeds)" \
        "$speeds" "$num_bins"; then
        asrtool features data/train.jsonl.gz data/fbank/train.jsonl.gz --speeds "$speeds" "${options[@]}"
        for name in $sets; do
            asrtool features "data/$name.jsonl.gz" "data/fbank/$name.jsonl.gz" "${options[@]}"
        done
        finish_stage "data/fbank/*.jsonl.gz"
    fi
}

# stage_lang: stage 2 makes the units, the language models and the decoding graph in $lang.
stage_lang() {
    local lexicon_options=() phone_options=() sources settings features_fingerprint=""
    mapfile -t sources < <(lexicon_sources "$lexicon")
    settings=("$units" "$vocab_size" "$leaves" "$unit_sets" "${sources[@]}" "$unknown" "$stress" "$case")
    settings+=("$lm_order" "$lm_words" "$lm_prune" "$rescore_order" "${lang_settings[@]}" "${lm_texts[@]}")
    if [ -n "$text_rules" ]; then settings+=("$recipe/$text_rules"); fi
    if [ "$topology" != ctc ]; then settings+=("topology $topology"); fi
    if [[ $units != *iphone && $feature_source = stored ]]; then # only units in context depend on features
        features_fingerprint=$stages_fingerprint$(completion_of 1)
        stages_fingerprint=$data_fingerprint
        stages_marker=$(marker_of 0)
    fi
    if begin_stage 2 "$(lang_title)" "${settings[@]}"; then
        mkdir -p "$lang"
        if [ -n "$text_rules" ]; then normalise_lm_texts; fi
        if has_lm; then make_lms; fi
        if [[ $units == *phone ]]; then
            make_lexicon
            lexicon_options=(--lexicon "$lang/lexicon.txt")
            phone_options=("${lexicon_options[@]}")
            if [ "$topology" = hmm ]; then phone_options+=(--silence "$silence_unit"); fi
        fi
        if [[ $units == *iphone ]]; then make_units_in_context; else make_units; fi
        if has_lm; then
            print_perplexities
            asrtool graph "$lang/graph" --tokenizer "$lang/tokenizer.json" --lm "$lang/graph.arpa.gz" \
                --topology "$topology" "${lexicon_options[@]}"
        fi
        finish_stage "$lang/tokenizer.json$(if has_lm; then echo " and $lang/graph"; fi)"
    fi
    stages_fingerprint+=$features_fingerprint # for the later stages
}

# stage_warmup: stage 3 trains on one machine until --warmup-hours of audio are consumed.
stage_warmup() {
    if [[ $warmup_hours =~ [1-9] ]] && begin_stage 3 "warmup on one machine ($warmup_hours hours of audio)" \
        "$conf" "$seed" "$warmup_hours" "${overrides[@]}"; then
        if [ "$fmllr" = true ]; then train_fmllr; fi
        run_ranks "$ranks" train "$conf" --exp "$start/warmup" "${start_options[@]}" \
            --phase warmup --warmup-hours "$warmup_hours"
        finish_stage "$start/warmup/checkpoints/warmup.pt"
    fi
}

# train_fmllr: trains the GMM of the speakers' transforms on the training set.
train_fmllr() {
    local settings
    settings="$features $(completion_of 2)"
    if [ "$feature_source" = stored ]; then settings+=" $(completion_of 1)"; fi
    build_once "$fmllr_model/train.pt" "$settings" \
        asrtool fmllr train "$features/train.jsonl.gz" "$fmllr_model" --tokenizer "$lang/tokenizer.json"
}

# stage_train: stage 4 trains the model: with CTC, and then with MMI or cross entropy if --objective asks for it. The
# system of --from is only read.
stage_train() {
    local output_options
    if begin_stage 4 "train with objective $objective ($(basename "$conf"), seed $seed${from:+, from $from})" \
        "$conf" "$final_conf" "$seed" "$objective" "from $start" "fmllr $fmllr" "${overrides[@]}"; then
        if [ "$fmllr" = true ]; then train_fmllr; fi
        if [ "$start" = "$exp" ] || [[ -z $from && ! -f $start/checkpoints/averaged.pt ]]; then
            run_machines "$launcher" "$ranks" train "$conf" --exp "$start" "${start_options[@]}" "${warmup_weights[@]}"
        fi
        if [ "$start" != "$exp" ]; then require_same_start; fi
        if [ "$objective" = mmi ] && [ "$start" != "$exp" ]; then
            output_options=$(output_layer_options "$from" "$topology")
            run_machines "$launcher" "$ranks" train "$final_conf" --exp "$exp" "${train_options[@]}" \
                --set objective.kind=mmi --init-from "$(weights_of "$start")" $output_options
        elif [ "$objective" = ce ]; then
            train_with_alignments
        fi
        finish_stage "$exp/checkpoints/averaged.pt and $exp/loss.png"
    fi
}

# require_same_start: records which weights of the starting system the training begins from; exits with an error if it
# began from others.
require_same_start() {
    local weights record=.done/$stages_experiment/start checksum
    weights=$(weights_of "$start")
    checksum=$(cksum <"$weights")
    if [[ -f $record && $(cat "$record") != "$checksum" ]] && compgen -G "$exp/checkpoints/step-*.pt" >/dev/null; then
        option_error "$exp was trained from other weights than $weights has now: give another --tag, or move $exp away"
    fi
    echo "$checksum" >"$record"
    stage_reads "$weights"
}

# train_with_alignments: aligns the training and dev sets of the configuration by the CTC system, and trains with cross
# entropy on them.
train_with_alignments() {
    local lines kind first second manifests=() changes=()
    lines=$(python3 "$driver/aligned_data.py" "$final_conf" "$aligned" "${config_options[@]}")
    while IFS=$'\t' read -r kind first second; do
        if [ "$kind" = align ]; then manifests+=("$first" "$second"); else changes+=(--set "$first"); fi
    done <<<"$lines"
    align_once "$start" "$aligned" "$stages_fingerprint" "${manifests[@]}"
    run_machines "$launcher" "$ranks" train "$final_conf" --exp "$exp" "${train_options[@]}" \
        --set objective.kind=ce "${changes[@]}"
}

# stage_decode: stage 5 decodes all sets by all methods of --decode.
stage_decode() {
    local manifests=() name settings=("$exp" "$decode" "$decoding_weights" "$precision")
    for name in $sets; do manifests+=("$features/$name.jsonl.gz"); done
    if [[ $decode == *neural* ]]; then settings+=("neural $neural"); fi
    if weighs_pronunciations; then settings+=("pronunciation hours $pronunciation_hours"); fi
    if begin_stage 5 "decode (${decode// /, })" "${settings[@]}"; then
        if [[ $decode =~ graph|rescored|neural ]] && weighs_pronunciations; then
            build_once "$graph/graph.json" "$(completion_of 2) $(completion_of 4) $pronunciation_hours" weigh_pronunciations
        fi
        if [[ $decode =~ graph|rescored && -z $decoding_weights ]] && has_dev; then
            tune_decoding "$exp" "$jobs" "$features/dev.jsonl.gz"
        fi
        if [[ $decode == *neural* ]]; then
            build_once "$lang/neural.pt" "$(completion_of 2) $neural" train_neural_lm
        fi
        decode_sets "$exp" "$lang" "$weights" "$fmllr_model" "$jobs" "$ranks" "$decode" "${manifests[@]}"
        finish_stage "$exp/decode/*/*/hyps.jsonl"
    fi
}

# stage_score: stage 6 prints the error rates of all sets and methods.
stage_score() {
    if begin_stage 6 "score (error rates with 95 % intervals)" "$exp"; then
        score_sets "$exp" "$decode" $sets | tee "$exp/results.txt"
        print_published
        finish_stage "$exp/results.txt and $exp/decode/*/*/{wer.json,report.txt,alignments.txt,alignments.jsonl}"
    fi
}

# stage_stream: stage 7 recognises the audio of all sets chunk by chunk, if the model can stream.
stage_stream() {
    local manifests=() name
    for name in $sets; do manifests+=("data/$name.jsonl.gz"); done
    if begin_stage 7 "stream chunk by chunk from audio (${decode// /, })" "$exp" "$decode" "$precision"; then
        stream_sets "$exp" "$weights" "$decode" "${manifests[@]}"
        finish_stage "$exp/stream/*/*/stream.json"
    fi
}

# stage_export: stage 8 exports the model, and compares all systems in the work folder. Their table is in exp/, since
# RESULTS.md in the folder of a recipe is a file of the checkout.
stage_export() {
    local scored
    if begin_stage 8 "export to ONNX, and write a table of all systems in exp/" "$exp"; then
        asrtool export "$exp" "$exp/export" --cuts "$features/${sets%% *}.jsonl.gz"
        scored=(exp/*/results.txt)
        asrtool report "${scored[@]%/results.txt}" --out exp/RESULTS.md
        finish_stage "$exp/export and exp/RESULTS.md"
    fi
}
