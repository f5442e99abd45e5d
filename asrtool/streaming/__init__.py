"""Recognition chunk by chunk: recogniser, streaming searches, endpointing and latency."""
