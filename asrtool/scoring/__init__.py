"""Hypotheses in; word error rates with intervals and readable reports out."""
