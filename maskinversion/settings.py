"""What can be chosen for an inversion. It stands by itself, so that it can be listed without torch."""

FITS = ("stretch", "pad", "crop", "aspect")
PRECISIONS = ("exact", "fast")
