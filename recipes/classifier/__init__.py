"""Classifiers of regions: LARE against a linear probe and zero-shot."""
