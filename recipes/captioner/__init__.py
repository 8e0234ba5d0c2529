"""The bundled captioner."""
