"""Log-probs in, hypotheses out: greedy and beam searches."""
