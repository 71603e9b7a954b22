"""A retrieval service: HTTP requests in batches, rules per request, versions of a live index, metrics and a page.

`engine` and `batcher` know nothing of HTTP; `http` and the other routes know nothing of models.
"""
