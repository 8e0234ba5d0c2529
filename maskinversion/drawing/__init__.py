"""Pictures for people: maps, labels, plots."""
