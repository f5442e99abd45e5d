"""Language models: n-grams (training, pruning, ARPA files, scoring), perplexity, and Transformer models."""
