"""Units, lexicon and language model to graphs, for decoding and for training.

Decoding: compile.py composes topology.py (H), context.py (C), lexicon_fst.py (L) and grammar.py (G); build.py is
`asrtool graph`, folder.py the folder that it writes, check.py the check of OpenFst files. kaldi_graph.py converts the
HCLG of a Kaldi system. phrases.py attaches hotwords to the states that word_starts.py finds. Training:
training_graphs.py, unit_ngram.py, context.py.
"""

from typing import Literal, get_args

# Compositions of the topology H, the lexicon L and the grammar G, which is the language model.
Kind = Literal["HLG", "HL", "LG", "H", "L", "G"]
KINDS: tuple[Kind, ...] = get_args(Kind)
