"""Speaker transforms of the features: a small GMM, and the fMLLR that it estimates for each speaker."""
