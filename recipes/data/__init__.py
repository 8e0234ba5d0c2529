"""Data sets, examples and pictures drawn from scenes of emoji."""
