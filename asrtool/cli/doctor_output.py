"""How the commands of `asrtool doctor` print their reports."""

from typing import TYPE_CHECKING

import click

from asrtool.cli.json_output import print_json
from asrtool.cli.text_output import print_text

if TYPE_CHECKING:
    from asrtool.doctor.findings import Report


def show(reports: "list[Report]", as_json: bool) -> None:
    """Prints reports to stdout, as text or as JSON, and exits with status 1 if there is an error or a warning."""
    from asrtool.doctor.findings import report_json, report_text

    document = report_json(reports)
    if as_json:
        print_json(document)
    else:
        print_text("\n\n".join(report_text(report) for report in reports))
    click.get_current_context().exit(document["status"])
