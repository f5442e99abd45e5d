"""New recipes: measures a corpus and the machine, chooses the settings, and writes the files of a recipe."""
