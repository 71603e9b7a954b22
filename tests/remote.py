"""File systems of fsspec for tests: a folder, memory, and S3 as moto serves it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hedgerow._urls import RemotePath, remote_path

BUCKET = "shop"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def s3_server() -> Iterator[None]:
    """A server of S3 with a bucket, which the environment names."""
    s3fs = pytest.importorskip("s3fs")
    server_of = pytest.importorskip("moto.server").ThreadedMotoServer
    server = server_of(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        # Servers of one process share their buckets.
        s3fs.S3FileSystem().makedirs(BUCKET, exist_ok=True)
        try:
            yield
        finally:
            s3fs.S3FileSystem.clear_instance_cache()
            server.stop()


def new_url(protocol: str, folder: Path) -> str:
    """A URL, or a path, of a folder that does not exist."""
    name = uuid.uuid4().hex
    roots = {"path": str(folder), "file": f"file://{folder}", "memory": "memory:/", "s3": f"s3://{BUCKET}"}
    return f"{roots[protocol]}/{name}"


def upload(folder: Path, url: str, last: str | None = None) -> None:
    """Make the folder at a URL equal to a local one: first new files, then the file `last`, then remove others."""
    root = remote_path(url)
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    for name in sorted(names, key=lambda name: name == last):
        write(root / name, (folder / name).read_bytes())
    for path in root.find():
        if str(path).removeprefix(f"{root}/") not in names:
            path.fs.rm_file(path.path)


def write(path: RemotePath, content: bytes) -> None:
    """Write a file."""
    path.fs.makedirs(path.fs._parent(path.path), exist_ok=True)
    path.fs.pipe_file(path.path, content)
