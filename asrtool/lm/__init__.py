"""Language models: n-grams (training, pruning, ARPA, queries) and neural ones."""
