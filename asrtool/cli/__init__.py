"""The command line. A command parses its options, calls one library function and prints what it returns.

Nothing heavy is imported at the top of a file here: `asrtool --help` must answer at once.
"""

import logging
import sys
import traceback
from contextlib import suppress

import click

from asrtool import __version__
from asrtool.cli.adapt import adapt
from asrtool.cli.align import align
from asrtool.cli.decode import decode, rescore, score, tune
from asrtool.cli.export import export
from asrtool.cli.features import features
from asrtool.cli.graph import graph
from asrtool.cli.lexicon import lexicon
from asrtool.cli.lm import lm
from asrtool.cli.prepare import prepare
from asrtool.cli.report import report
from asrtool.cli.stream import stream
from asrtool.cli.tokenizer import tokenizer
from asrtool.cli.train import info, train
from asrtool.errors import AsrtoolError, DataError
from asrtool.interrupts import TERMINATED, Terminated, exit_on_sigterm
from asrtool.logs import log_to_stderr, printable

HELP = {"help_option_names": ["-h", "--help"], "show_default": True}


@click.group(context_settings=HELP)
@click.version_option(__version__, prog_name="asrtool")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option("--quiet", "level", flag_value=logging.WARNING, type=int, help="Log only warnings.")
@click.option("--verbose", "level", flag_value=logging.DEBUG, type=int, help="Log details as well.")
def cli(debug: bool, level: int | None) -> None:
    """Train and run Transformer acoustic models for speech recognition.

    \b
    The usual order, for a corpus of your own:
      asrtool prepare table mine.csv data/train.jsonl.gz
      asrtool tokenizer data/train.jsonl.gz data/lang/tokenizer.json --type bpe --vocab-size 500
      asrtool train conf/transformer.yaml --exp exp/transformer
      asrtool decode exp/transformer data/test.jsonl.gz
      asrtool score exp/transformer/decode/test/greedy

    \b
    Exit status: 0 success; 1 wrong data, listed on stderr; 2 a wrong request, one line on stderr;
    70 a fault of asrtool; 130 Ctrl-C; 143 SIGTERM.
    """
    log_to_stderr(logging.INFO if level is None else level)


for command in (
    *(prepare, features, lexicon, tokenizer, lm, graph),
    *(train, info, align, decode, tune, rescore, adapt, score, stream, report, export),
):
    cli.add_command(command)


def main() -> None:
    """Run a command and turn errors into lines and exit statuses."""
    with exit_on_sigterm():
        _run("--debug" in sys.argv)


def _run(debug: bool) -> None:
    try:
        cli.main(prog_name="asrtool", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except SystemExit as stop:  # no command exits itself; click does so, with 1, when nobody reads what it prints
        sys.exit(141 if stop.code == 1 else stop.code)
    except click.ClickException as error:
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # of click 8.2; 8.1 shows it itself
            error.show()
            sys.exit(error.exit_code)
        message = " ".join(error.format_message().split())  # click lists choices on lines of their own
        _fail(message + _help_hint(error), error.exit_code, debug)
    except AsrtoolError as error:
        _fail(error.all_lines() if debug and isinstance(error, DataError) else str(error), error.exit_status, debug)
    except (KeyboardInterrupt, click.Abort) as error:
        _fail(*_interruption(error.__cause__ or error), debug)
    except OSError as error:
        _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 2, debug)
    except Exception as error:
        _fail(f"unexpected {type(error).__name__}: {error} (--debug shows where)", 70, debug)


def _interruption(cause: BaseException) -> tuple[str, int]:
    """The line and the exit status of what click takes for Ctrl-C, or what it made of that."""
    if isinstance(cause, EOFError) or isinstance(cause.__context__, EOFError):  # the end of any file, to click
        return "unexpected EOFError: a file ends too early (--debug shows where)", 70
    return ("terminated", TERMINATED) if isinstance(cause, Terminated) else ("interrupted", 130)


def _help_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f" (see `{context.command_path} --help`)" if context else ""


def _fail(message: str, status: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    *before, last = message.splitlines() or [""]
    with suppress(OSError, ValueError):  # a closed stderr does not change the exit status
        for line in before:
            print(printable(line), file=sys.stderr)
        print(f"asrtool: error: {printable(last)}", file=sys.stderr)
    sys.exit(status)
