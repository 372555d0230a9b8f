"""A store of S3's protocol on loopback, which can break connections, be full, or refuse credentials."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import get_canned_acl
from s3fs import S3FileSystem
from werkzeug.serving import WSGIRequestHandler, make_server

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLEEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "no_proxy": "127.0.0.1",
}
_FULL = (
    b'<?xml version="1.0"?><Error><Code>QuotaExceeded</Code><Message>The bucket is full</Message>'
    b"<RequestId>1</RequestId></Error>"
)


class Store:
    """The store. `fault` is "" or what goes wrong: "read", "write" or "full"; `requests` are methods and paths."""

    def __init__(self) -> None:
        self.fault = ""
        self.requests: list[tuple[str, str]] = []
        self._app = DomainDispatcherApplication(create_backend_app)

    @property
    def backend(self):
        return get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]

    def put(self, bucket: str, key: str, data: bytes, public: bool = False) -> None:
        if bucket not in self.backend.buckets:
            self.backend.create_bucket(bucket, "us-east-1")
        stored = self.backend.put_object(bucket, key, data)
        if public:
            stored.set_acl(get_canned_acl("public-read"))

    def files(self, bucket: str) -> dict[str, bytes]:
        """The bucket's keys and their bytes."""
        return {key: found.value for key, found in self.backend.buckets[bucket].keys.items()}

    def __call__(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        if self.fault == "write" and method == "PUT":
            environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]) // 2)
            return self._hang_up(environ)
        if self.fault == "full" and method == "PUT":
            start_response("507 Insufficient Storage", [("Content-Type", "application/xml")])
            return [_FULL]
        answer = self._app(environ, start_response)
        if self.fault == "read" and method == "GET" and path.count("/") > 1:
            whole = b"".join(answer)
            return self._half(environ, whole)
        return answer

    def _half(self, environ, whole: bytes):
        yield whole[: len(whole) // 2]
        self._hang_up(environ)

    @staticmethod
    def _hang_up(environ) -> list[bytes]:
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return []


class _Quiet(WSGIRequestHandler):
    def log(self, *_) -> None: ...


@contextmanager
def store() -> Iterator[Store]:
    """A store, and the environment that leads S3 clients to it."""
    app = Store()
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}"}
    S3FileSystem.clear_instance_cache()  # fsspec keeps clients, with the address of an earlier store
    try:
        with mock.patch.dict(os.environ, {**ENVIRONMENT, **address}):
            yield app
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
