"""Data sets in their published formats, a file a format, as pictures with regions: COCO and LVIS, RefCOCO and its kin, PhraseCut,
PASCAL VOC, PASCAL-Context, Open Images."""
