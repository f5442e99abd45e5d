#!/usr/bin/env bash
# Sourced by run.sh: what stage 2 needs for its language models and its lexicon, from text or, with --lm, ready-made.

lm_files="3-gram.pruned.1e-7.arpa.gz 4-gram.arpa.gz librispeech-lexicon.txt"

# The folder of the files that --lm names: sets $lm_dir.
find_lm() {
    local file
    lm_dir=$lm
    if [ "$lm" = openslr ]; then
        lm_dir=download/lm
        python3 "$ASRTOOL_ROOT/local/download.py" "$lm_dir" $lm_files --url "$mirror" --sums "$here/local/md5sum.txt"
    fi
    for file in $lm_files; do
        [ -f "$lm_dir/$file" ] || stages_stop "no $file in $lm_dir; --lm takes a folder with $lm_files, or openslr"
    done
}

# $lang/graph.arpa.gz for the graph, $lang/rescore.npz for its lattices: compiled, as it is read at every decoding
make_lms() {
    mkdir -p "$lang"
    rm -f "$lang/graph.arpa.gz" # which may be a link
    if [ -n "$lm" ]; then
        find_lm
        ln -s "$(realpath "$lm_dir/3-gram.pruned.1e-7.arpa.gz")" "$lang/graph.arpa.gz"
        asrtool lm convert "$lm_dir/4-gram.arpa.gz" "$lang/rescore.npz"
    else
        asrtool lm train "${texts[@]}" "$lang/graph.arpa.gz" --order 3 --case upper --top "$lm_words" --prune "$lm_prune"
        asrtool lm train "${texts[@]}" "$lang/rescore.npz" --order 4 --case upper --top "$lm_words"
    fi
}

# $lang/neural.pt, with the options --neural
make_neural_lm() {
    on_this_machine lm train-neural "${texts[@]}" "$lang/neural.pt" --case upper --dev data/dev.jsonl.gz $neural
    asrtool lm perplexity "$lang/neural.pt" data/dev.jsonl.gz --ngram "$lang/rescore.npz"
}

# $lang/lexicon.txt, also of the words of dev, for the dev loss; the graph has those of the 3-gram
make_lexicon() {
    if [ -n "$lm" ]; then
        awk '{print $1}' "$lm_dir/librispeech-lexicon.txt" >"$lang/words.txt"
        asrtool lexicon data/dev.jsonl.gz data/train.jsonl.gz "$lang/words.txt" "$lang/lexicon.txt" \
            --source "$lm_dir/librispeech-lexicon.txt" --stress drop --unknown g2p
    else
        asrtool lexicon data/dev.jsonl.gz "${texts[@]}" "$lang/lexicon.txt" --source cmudict --case upper \
            --unknown g2p --top "$lm_words"
    fi
}
