"""Features to log-probabilities: pure modules that know of nothing but tensors and their configuration."""
