"""The errors that people see. Every message says what was wrong with which input, and what to do."""


class MaskInversionError(Exception):
    """Base class of every error that this library raises on purpose."""


class InputError(MaskInversionError, ValueError):
    """An image, a mask or a parameter cannot be used."""


class ModelError(MaskInversionError, ValueError):
    """A model cannot be found, read, or used for MaskInversion."""


class MemoryLimitError(MaskInversionError, MemoryError):
    """There is not enough memory for this image, these masks and this model."""
