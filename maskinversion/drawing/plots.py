"""Where plots are drawn with: an optional package."""

from types import ModuleType

from ..errors import PackageError


def pyplot() -> ModuleType:
    """matplotlib's, for files only. Raises PackageError without matplotlib."""
    try:
        import matplotlib
    except ImportError as error:
        raise PackageError("the plot needs the package matplotlib: python -m pip install matplotlib") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot as drawn

    return drawn
