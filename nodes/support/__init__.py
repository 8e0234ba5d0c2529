"""What the nodes share: models in ComfyUI's care, files, phrases, progress, sockets, and conversion of types."""
