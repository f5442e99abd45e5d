"""Checks of the environment, of data, of a recipe and of a trained system: all findings, each with cause and remedy."""
