"""Regions of many pictures: their tokens in a table of Parquet files, made batch by batch, by one process or by many."""
