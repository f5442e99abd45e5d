"""What the commands of `asrtool doctor` share: the option --json, and printing reports."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from asrtool.doctor.findings import Report

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def show(reports: "list[Report]", as_json: bool) -> None:
    """Prints reports to stdout, as text or as JSON, and exits with status 1 if there is an error or a warning."""
    import json

    from asrtool.doctor.findings import report_json, report_text
    from asrtool.logs import printable

    document = report_json(reports)
    if as_json:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        click.echo(printable("\n\n".join(report_text(report) for report in reports)))
    click.get_current_context().exit(document["status"])
