"""How the bundled models, examples and pictures were made: see README.md here for what to run, in which order."""
