"""`maskinversion eval`: how well embeddings of regions name and find them, MaskInversion against other ways on the same model.

`settings` says what to evaluate, `data` reads data sets, `masks` and `baselines` make masks and embeddings, `protocols` scores
them, `run` is the resumable loop over pictures, and `report` writes what came of it. `paper` does all that for the paper's tables.
"""
