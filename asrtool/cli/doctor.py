"""`asrtool doctor`: checks of the environment, of data, of a recipe and of a trained system."""

import click


@click.group()
def doctor() -> None:
    """Check the environment, data, a recipe or a system, and list all findings.

    Each finding has its cause and the command that mends it. The exit status is 0 without findings, 1 if there are
    errors or warnings, and 2 for a usage error; notes do not change it.
    """
