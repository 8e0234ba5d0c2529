"""A prior in miniature: a prompt with a region in it, to an image embedding."""
