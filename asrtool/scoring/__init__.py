"""Scoring of hypotheses: error rates with intervals, readable reports, and tables of results."""
