"""Builds, retrieval and serving over the machines of a Ray cluster. Without a cluster, one starts on this machine."""

from hedgerow.errors import MissingDependencyError

try:
    import ray as _ray  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "ray":
        raise
    raise MissingDependencyError.of("hedgerow.ray", "ray", "ray") from error

from hedgerow.ray.application import application
from hedgerow.ray.build import build
from hedgerow.ray.cluster import start
from hedgerow.ray.retrieve import Retrieve

__all__ = ["Retrieve", "application", "build", "start"]
