"""Runs commands of asrtool in this process, and prints after each which of the slow packages have been imported.

    python tests/cli/loaded_modules.py < commands.json

The input is a JSON list of lists of words, such as [["score", "exp/x/decode/test/greedy"]]. The output is a JSON list
of an object for each command: {"status": 0, "loaded": ["torch"], "error": "what the command printed to stderr"}.
"""

import contextlib
import io
import json
import sys

SLOW = ("torch", "lhotse", "scipy.signal", "pandas", "matplotlib", "torchaudio", "onnx", "onnxruntime")


def run(words: list[str]) -> dict:
    """Runs one command of the command line."""
    from asrtool.cli import main

    sys.argv = ["asrtool", *words]
    printed = io.StringIO()
    status: object = 0
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())), contextlib.redirect_stderr(printed):
        try:
            main()
        except SystemExit as stop:
            status = stop.code or 0
    return {"status": status, "loaded": [name for name in SLOW if name in sys.modules], "error": printed.getvalue()}


if __name__ == "__main__":
    results = [run(words) for words in json.load(sys.stdin)]
    print(json.dumps(results))
