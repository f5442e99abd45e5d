"""Self-contained HTML pages: an analysis of the errors of a system, with everything inside one file."""
