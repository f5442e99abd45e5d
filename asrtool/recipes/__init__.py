"""New recipes for corpora: measures the data and the machine, chooses the settings, and writes the files of a recipe."""
