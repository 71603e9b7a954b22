"""Traces of requests with OpenTelemetry, an optional extra. The variables OTEL_* say where they go."""

from __future__ import annotations

from typing import Any

from hedgerow.errors import MissingDependencyError


def traced(app: Any, exporter: Any = None) -> Any:
    """An application whose requests are spans.

    Args:
        app: the application.
        exporter: where spans go. Default: the OTLP endpoint of the environment.

    Raises:
        MissingDependencyError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter()
    except ModuleNotFoundError as error:
        raise MissingDependencyError.of("--otel", str(error.name).replace(".", "-"), "otel") from error
    # OTEL_SERVICE_NAME replaces the name.
    provider = TracerProvider(resource=Resource({"service.name": "hedgerow"}).merge(Resource.create()))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return OpenTelemetryMiddleware(app, tracer_provider=provider, excluded_urls="health,metrics,ui")
