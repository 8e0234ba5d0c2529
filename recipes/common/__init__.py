"""What several recipes use: scenes of emoji, and how a model is trained and measured on them."""
