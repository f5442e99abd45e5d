"""Export of a trained model for other runtimes.

export.py        the folder of `asrtool export`: ONNX graphs, units, and what else a runtime must know
onnx_graphs.py   the model as ONNX graphs, of whole utterances and of a step
parity.py        the check that the graphs in onnxruntime give the model's log-probs
"""
