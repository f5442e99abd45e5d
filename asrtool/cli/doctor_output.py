"""What commands with an option --json share: the option, and printing JSON and reports."""

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from asrtool.doctor.findings import Report

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def print_json(value: Any) -> None:
    """Prints a tree of plain types as JSON in UTF-8; numbers that are not finite become null.

    A byte of a file name that is not UTF-8, which Python holds as a lone surrogate, becomes an escape such as \\udcff.
    """
    import json

    from asrtool.files import finite_or_null

    text = json.dumps(finite_or_null(value), indent=2, ensure_ascii=False, allow_nan=False)
    click.echo(text.encode("utf-8", "backslashreplace").decode())


def show(reports: "list[Report]", as_json: bool) -> None:
    """Prints reports to stdout, as text or as JSON, and exits with status 1 if there is an error or a warning."""
    from asrtool.doctor.findings import report_json, report_text
    from asrtool.logs import printable

    document = report_json(reports)
    if as_json:
        print_json(document)
    else:
        click.echo(printable("\n\n".join(report_text(report) for report in reports)))
    click.get_current_context().exit(document["status"])
