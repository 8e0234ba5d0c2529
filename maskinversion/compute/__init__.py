"""Products and memory, by what is fastest on the device at hand."""
