"""Functions that two families or more use, each tested against SciPy or a closed form."""
