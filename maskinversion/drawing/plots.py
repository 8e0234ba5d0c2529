"""Where plots are drawn with: an optional package."""

from types import ModuleType

from ..errors import InputError


def pyplot() -> ModuleType:
    """matplotlib's, for files only. Raises InputError without matplotlib."""
    try:
        import matplotlib
    except ImportError as error:
        raise InputError("the plot needs matplotlib: pip install matplotlib") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot as drawn

    return drawn
