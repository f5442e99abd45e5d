"""Export of a trained model to other runtimes: ONNX graphs, the files of sherpa-onnx, and checks of their results."""
