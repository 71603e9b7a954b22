"""`hedgerow bench` and `hedgerow plan`: cases, baselines, timing and reports."""
