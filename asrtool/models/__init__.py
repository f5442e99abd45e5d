"""Features to log-probabilities: modules that depend only on torch and on their section of the configuration.

acoustic.py             the whole model: normalisation, front end, encoder, output layer; `forward`, `step`, `latency`
interface.py            what front ends and encoders have in common: `forward`, `initial_state`, `step`
normalise.py            feature normalisation
subsampling.py          front ends: stacked frames, 2-D convolution, VGG
blstm.py                encoder: bidirectional LSTM
lc_blstm.py             encoder: latency-controlled BLSTM
transformer.py          encoder: Transformer over the whole utterance, a sliding window or chunks
transformer_xl.py       encoder: Transformer-XL, chunks with memory
attention.py            self-attention under any of these masks
dot_product.py          scaled dot-product attention and its masks
relative_positions.py   Transformer-XL's relative positions
memory_projection.py    queries, keys and values of Transformer-XL, whose memory has no gradient
convolution.py          convolution between the Transformer's blocks
dropout.py              dropout that is cheap on a CPU
initialise.py           depth-scaled initialisation
masks.py                padding, sliding windows and chunks
caches.py               the state of a stream within a step
stream_states.py        the states of many streams
info.py                 size, cost, memory and latency of a configuration
cost.py                 the share of attention in the cost of a model
"""
