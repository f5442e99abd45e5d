"""Corpora in, batches out, on lhotse's manifests."""
