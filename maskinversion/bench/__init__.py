"""`maskinversion bench`: time and memory against what else there is, as ratios measured side by side in one run."""
