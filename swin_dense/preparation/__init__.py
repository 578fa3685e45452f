"""Other projects' formats and archives made into a data root that a training takes as it is."""
