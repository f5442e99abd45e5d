"""Packs: a trained system as one folder with everything that recognition needs, and its model card."""
