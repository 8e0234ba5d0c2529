"""The bundled CLIP."""
