"""The command line. A command parses its options, calls one library function and prints what it returns.

Nothing heavy is imported at the top of a file here: `asrtool --help` must answer at once.
"""

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress

import click

from asrtool.cli.adapt import adapt
from asrtool.cli.align import align
from asrtool.cli.calibrate import calibrate
from asrtool.cli.clean import clean
from asrtool.cli.combine import combine
from asrtool.cli.compare import compare
from asrtool.cli.decode import decode
from asrtool.cli.doctor import doctor
from asrtool.cli.export import export
from asrtool.cli.features import features
from asrtool.cli.fmllr import fmllr
from asrtool.cli.graph import graph
from asrtool.cli.info import info
from asrtool.cli.lexicon import lexicon
from asrtool.cli.lm import lm
from asrtool.cli.new import new
from asrtool.cli.normalise import normalise
from asrtool.cli.pack import pack
from asrtool.cli.plan import plan
from asrtool.cli.prepare import prepare
from asrtool.cli.report import report
from asrtool.cli.rescore import rescore
from asrtool.cli.score import score
from asrtool.cli.segment import segment
from asrtool.cli.serve import serve
from asrtool.cli.split import split, subset
from asrtool.cli.stream import stream
from asrtool.cli.tokenizer import tokenizer
from asrtool.cli.train import train
from asrtool.cli.transcribe import transcribe
from asrtool.cli.tree import tree
from asrtool.cli.tune import tune
from asrtool.errors import AsrtoolError, DataError
from asrtool.interrupts import TERMINATED, Terminated, exit_on_sigterm
from asrtool.logs import log_to_stderr, printable

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}
INTERRUPTED = 130  # exit status after Ctrl-C, as in shells: 128 + SIGINT
BROKEN_PIPE = 141  # exit status when nobody reads the output: 128 + SIGPIPE
BUG = 70  # exit status of an unexpected error: EX_SOFTWARE of sysexits.h


def _print_versions(context: click.Context, _option: click.Parameter, is_given: bool) -> None:
    if is_given and not context.resilient_parsing:
        from asrtool.versions import version_lines

        click.echo("\n".join(version_lines()))
        context.exit()


@click.group(context_settings=CONTEXT_SETTINGS)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_versions,
    help="Show the versions of asrtool and of its libraries.",
)
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

    The options --debug, --quiet and --verbose may also stand after the name of a command.

    A usage error prints one line and exits with status 2. Data errors are listed completely and exit with status 1. A
    bug in asrtool exits with status 70, Ctrl-C with 130 and SIGTERM with 143.
    """
    log_to_stderr(logging.INFO if level is None else level)


COMMANDS = (
    *(new, prepare, normalise, split, subset, features, fmllr, lexicon, tokenizer, tree, lm, graph),
    *(train, info, plan, align, segment, clean, decode, tune, calibrate, rescore, combine, adapt, score),
    *(transcribe, stream, serve, report, compare, export, pack, doctor),
)
for command in COMMANDS:
    cli.add_command(command)


def _set_level(_context: click.Context, option: click.Parameter, is_given: bool) -> None:
    """Apply --quiet or --verbose after the name of a command. The group has set the default level before."""
    if is_given:
        log_to_stderr(logging.WARNING if option.name == "quiet" else logging.DEBUG)


def leaf_commands(group: click.Group) -> Iterator[click.Command]:
    """Yields all commands below a group that are not groups themselves."""
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from leaf_commands(command)
        else:
            yield command


def add_common_options(command: click.Command) -> None:
    """Let --debug, --quiet and --verbose stand after the name of a command, too. `main` itself looks for --debug."""
    flags = [
        click.Option(["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error."),
        click.Option(["--quiet"], is_flag=True, expose_value=False, callback=_set_level, help="Log only warnings."),
        click.Option(["--verbose"], is_flag=True, expose_value=False, callback=_set_level, help="Log details as well."),
    ]
    command.params.extend(flags)


for command in leaf_commands(cli):
    add_common_options(command)


def main() -> None:
    """Run a command, and turn its errors into lines on stderr and exit statuses."""
    with exit_on_sigterm():
        _run("--debug" in sys.argv)


def _run(debug: bool) -> None:
    try:
        status = cli.main(prog_name="asrtool", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except SystemExit as stop:  # no command calls sys.exit; click does, with status 1, when a pipe is closed
        sys.exit(BROKEN_PIPE if stop.code == 1 else stop.code)
    except click.ClickException as error:
        _fail_usage(error, debug)
    except DataError as error:
        _fail(error.all_lines() if debug else str(error), error.exit_status, debug)
    except AsrtoolError as error:
        _fail(str(error), error.exit_status, debug)
    except (KeyboardInterrupt, click.Abort) as error:
        _fail(*_explain_abort(error.__cause__ or error), debug)
    except OSError as error:
        place = f": {error.filename}" if error.filename else ""
        _fail(f"{error.strerror or error}{place}", 2, debug)
    except Exception as error:
        _fail(f"unexpected {type(error).__name__}: {error} (--debug shows where)", BUG, debug)
    else:
        _exit(status)


def _exit(status: object) -> None:
    """Exits with what `Context.exit` was called with, which click returns; commands return None."""
    if isinstance(status, int):
        sys.exit(status)


def _fail_usage(error: click.ClickException, debug: bool) -> None:
    """Exit with the error's line and a hint at the command's help; a group without a command shows its help."""
    if type(error).__name__ == "NoArgsIsHelpError":  # of click 8.2; click 8.1 prints the help itself
        error.show()
        sys.exit(error.exit_code)
    message = " ".join(error.format_message().split())  # click lists choices on lines of their own
    context = getattr(error, "ctx", None)
    if context and isinstance(error, click.MissingParameter) and isinstance(error.param, click.Argument):
        arguments = " ".join(context.command.collect_usage_pieces(context)[1:])
        message = f"{message.removesuffix('.')}; the arguments are {arguments}"  # A... OUT: click blames the first
    hint = f" (see `{context.command_path} --help`)" if context else ""
    _fail(message.removesuffix(".") + hint, error.exit_code, debug)


def _explain_abort(cause: BaseException) -> tuple[str, int]:
    """Returns the error line and the exit status for KeyboardInterrupt, and for what click turns into its Abort."""
    if isinstance(cause, EOFError) or isinstance(cause.__context__, EOFError):  # click raises Abort for any EOFError
        return "unexpected EOFError: a file ends too early (--debug shows where)", BUG
    if isinstance(cause, Terminated):
        return "terminated", TERMINATED
    return "interrupted", INTERRUPTED


def _fail(message: str, status: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    *details, last = message.splitlines() or [""]
    with suppress(OSError, ValueError):  # a closed stderr does not change the exit status
        for line in details:
            print(printable(line), file=sys.stderr)
        print(f"asrtool: error: {printable(last)}", file=sys.stderr)
    sys.exit(status)
