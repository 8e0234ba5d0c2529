"""Which hidden states of a region tell a reader of them most."""
