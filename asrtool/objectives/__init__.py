"""Log-probabilities and targets to a loss."""
