"""The bundled decoders."""
