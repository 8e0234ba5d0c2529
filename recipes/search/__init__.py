"""What searching a collection of regions finds, and how quickly."""
