"""What start.py and the tests share; no part of the library or of the pack."""
