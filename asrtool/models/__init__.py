"""Features to log-probabilities: pure modules that know of nothing but tensors and their configuration.

acoustic.py         the model: normalisation, front end, encoder, output; `forward`, `step`, `latency`
normalise.py        the first part
subsampling.py      front ends: stacked frames, 2-D convolution, VGG
blstm.py lc_blstm.py transformer.py transformer_xl.py      an encoder each
attention.py convolution.py initialise.py                  what the Transformers are made of
masks.py caches.py                                         which frames see which; what a stream remembers
streaming.py        streams of pieces of any length through `step`
info.py             size, cost, memory and latency of a configuration

A layer has `forward`, over whole utterances, and where it can stream `initial_state` and `step`, which give the same
numbers chunk by chunk, `delay` frames later.
"""
