"""Where the recipes read and write."""

from pathlib import Path

ROOT = Path(__file__).parents[2]  # of the checkout
BUILD = ROOT / "recipes" / "build"  # everything that is made on the way; not in git
