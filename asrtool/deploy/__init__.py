"""A trained model for other runtimes than asrtool's own.

export.py   the folder of `asrtool export`: ONNX graphs, units, and what else a runtime must know
parity.py   whether onnxruntime gets the model's numbers out of the graphs
"""
