"""Options of searches that `asrtool decode` and `asrtool stream` share; those that are not given are None.

asrtool/decoding/graph_options.py and asrtool/decoding/options.py define the defaults; they are not imported here since
a help text must appear at once.
"""

import click

from asrtool.cli.options import NOT_NEGATIVE, NUMBER, PATH, POSITIVE, add_options

METHOD = click.Choice(["greedy", "prefix", "graph"])
MAX_NBEST_OPTION = 1000  # hypotheses of an utterance: rescoring gains nothing from more than some hundreds


def _beam_option(graph_default: str):
    return click.option(
        "--beam",
        type=POSITIVE,
        show_default=f"8 prefixes; in graph search {graph_default}",
        help="Beam: the number of prefixes (--method prefix), or the largest cost above the best path (--method "
        "graph).",
    )


beam_option = _beam_option("16.0, with lattices 12.0")
# A pack without a beam leaves it to the command that searches.
packed_beam_option = _beam_option("12.0 in `asrtool transcribe`, 16.0 in `asrtool decode`")
lattice_search_beam_option = _beam_option("12.0, with --max-active 16.0")  # asrtool/decoding/system_options.py
serving_beam_option = _beam_option("16.0 for streams, 12.0 for uploads, with --max-active 16.0")

prefix_search_options = add_options(
    click.option(
        "--insertion-penalty",
        type=NUMBER,
        show_default="0.0",
        help="Word insertion penalty, a cost for each word; with --method prefix for each word or unit of --lm.",
    ),
    click.option(
        "--lm",
        type=PATH,
        help="Language model for shallow fusion: ARPA, .npz or KenLM binary (--method prefix only).",
    ),
    click.option(
        "--lm-weight",
        type=NOT_NEGATIVE,
        show_default="0.5",
        help="Weight of the log-probs of --lm (--method prefix only).",
    ),
    click.option(
        "--lm-units",
        is_flag=True,
        default=None,
        help="The language model of --lm is over units instead of words; always so where units are words "
        "(--method prefix only).",
    ),
)

hotwords_option = click.option(
    "--hotwords",
    type=PATH,
    help="File of phrases to expect, one a line, a weight after a tab (--method prefix or graph).",
)
no_rescore_option = click.option(
    "--no-rescore",
    is_flag=True,
    default=None,
    help="Leave out the lattice rescoring that a pack has a language model for (--method graph only).",
)
graph_option = click.option("--graph", type=PATH, help="Decoding graph, a folder of `asrtool graph`.")
priors_option = click.option(
    "--priors",
    type=PATH,
    help="Counts of the units, a JSON list such as EXP/priors.json of objective ce; the log-priors are subtracted "
    "from the log-probs in graph search.",
)

decoding_weights_option = click.option(
    "--decoding-weights",
    type=PATH,
    help="Acoustic scale and both penalties, a file of `asrtool tune` (--method graph only).",
)

# Options of commands that search in graphs only, and thus have no --method.
graph_decoding_weights_option = click.option(
    "--decoding-weights",
    type=PATH,
    help="Acoustic scale and both penalties for the graph, a file of `asrtool tune`.",
)
lattice_search_beams = add_options(
    click.option(
        "--beam",
        type=POSITIVE,
        show_default="12.0",
        help="Beam, the largest cost above the best path.",
    ),
    click.option(
        "--lattice-beam",
        type=POSITIVE,
        show_default="8.0",
        help="Lattice beam, the largest cost above the best path.",
    ),
)

graph_search_options = add_options(
    click.option(
        "--max-active",
        type=click.IntRange(min=2),
        show_default="1000",
        help="Largest number of active states in a frame (--method graph only).",
    ),
    click.option(
        "--min-active",
        type=click.IntRange(min=0),
        show_default="20",
        help="Number of active states in a frame that are kept outside of the beam, too (--method graph only).",
    ),
    click.option(
        "--acoustic-scale",
        type=POSITIVE,
        show_default="1.0",
        help="Scale applied to the acoustic log-probs (--method graph only).",
    ),
    click.option(
        "--blank-penalty",
        type=NUMBER,
        show_default="0.0",
        help="Blank penalty, a cost for each frame of blank (--method graph only).",
    ),
    decoding_weights_option,
    priors_option,
)

nbest_option = click.option(
    "--nbest",
    type=click.IntRange(1, MAX_NBEST_OPTION),
    show_default="1",
    help="Number of hypotheses that are written for an utterance, fewer where the search finds fewer texts; --method "
    "prefix takes at least as large a beam (--method prefix or graph).",
)


def _lattice_beam_option(default: str):
    return click.option(
        "--lattice-beam",
        type=POSITIVE,
        show_default=default,
        help="Lattice beam, the largest cost above the best path (--method graph only).",
    )


packed_lattice_beam_option = _lattice_beam_option("6.0 in `asrtool transcribe`, 8.0 in `asrtool decode`")


def _rescoring_options(lattice_beam: str):
    return add_options(
        _lattice_beam_option(lattice_beam),
        click.option(
            "--rescore",
            type=PATH,
            help="N-gram model for lattice rescoring; it replaces the one that the graph was built from.",
        ),
        click.option(
            "--graph-lm",
            type=PATH,
            help="N-gram model that the graph was built from; needed with --rescore to subtract its scores.",
        ),
    )


rescoring_options = _rescoring_options("8.0")
lattice_search_options = _rescoring_options("6.0; with --max-active, no lattices are built")
