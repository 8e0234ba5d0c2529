"""How well prompts of regions say what is in the region."""
