"""Retrieval inside vLLM: exact beams as one prefill-only request, `/v1/retrieve` on vLLM's own server, and a processor.

vLLM loads the parts by its entry points. Its processes read the environment variables of `settings`.
"""
