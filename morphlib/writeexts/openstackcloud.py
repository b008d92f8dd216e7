"""OpenStack clouds: logging in with Keystone's version 3, images of Glance's version 2."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from morphlib.errors import MorphError, Reason
from morphlib.text import make_printable
from morphlib.writeexts.undo import undone_on_failure

if TYPE_CHECKING:
    from openstack.connection import Connection

_VERSION = re.compile(r"v[0-9]+(\.[0-9]+)?")
#: Seconds: for an answer; for that to the upload, which comes when all is stored; between looks at
#: an image that is being stored; for it to be there.
_ANSWER, _STORED, _PAUSE, _ACTIVE = 60, 3600, 1.0, 600
_GOING_ON = ("queued", "saving", "importing", "uploading")

#: Called with the bytes that are sent, and all of them.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Account:
    """Who logs in where. `url` is Keystone's, `ca` a file with certificates to trust."""

    url: str
    user: str
    project: str
    password: str = field(repr=False)
    user_domain: str = "Default"
    project_domain: str = "Default"
    region: str = ""
    ca: Path | None = None


def parse_keystone_url(location: str) -> str:
    """Keystone's URL for version 3. Raises MorphError.

    Clusters of old say /v2.0, which Keystone has no more: what they mean is at /v3.
    """
    try:
        parts = urlsplit(location)
    except ValueError as error:
        raise _error(f"Cannot parse location {location}: {error}") from error
    if parts.scheme not in ("http", "https"):
        raise _error(f"URL schema must be http or https in {location}")
    if not parts.hostname or parts.query or parts.fragment or not location.isprintable():
        raise _error(f"{location} is no URL of a Keystone, such as https://HOST:5000/v3")
    if "@" in parts.netloc:
        raise _error("the user's name and password do not belong into the location")
    path, _, version = parts.path.rstrip("/").rpartition("/")
    if not _VERSION.fullmatch(version):
        path = parts.path.rstrip("/")
    elif version not in ("v3", "v2.0"):
        raise _error(f"API version must be v3 in {location}")
    return f"{parts.scheme}://{parts.netloc}{path}/v3"


@dataclass(frozen=True, slots=True)
class Cloud:
    """A cloud that one is logged in to."""

    connection: Connection

    def upload(self, name: str, image: Path, progress: Progress) -> str:
        """Make an image of a raw disk image. Returns its id. Raises MorphError.

        It is there, whole and right, or not at all.
        """
        with _explained("OpenStack did not take the image"):
            made = self._call(
                "POST", "/images", {"name": name, "disk_format": "raw", "container_format": "bare"}
            )
        number = str(made["id"])
        with undone_on_failure(f"delete the image {number}", lambda: self._delete(number)):
            with _explained("OpenStack did not take the image"), image.open("rb") as file:
                content = _Content(file, progress)
                self._put(f"/images/{number}/file", content)
            with _explained("OpenStack did not keep the image"):
                self._check(number, content)
        return number

    def _put(self, path: str, content: _Content) -> None:
        """What is sent can't be sent again, to wherever the server might lead."""
        from openstack.exceptions import raise_from_response

        response = self.connection.image.put(
            path,
            data=content,
            headers={"Content-Type": "application/octet-stream"},
            timeout=_STORED,
            allow_reauth=False,
            redirect=False,
            connect_retries=0,
        )
        raise_from_response(response)
        if response.status_code >= 300 or content.sent != len(content):
            raise _error(f"OpenStack did not take the image: status {response.status_code}")

    def _check(self, number: str, content: _Content) -> None:
        deadline = time.monotonic() + _ACTIVE
        while (found := self._call("GET", f"/images/{number}"))["status"] in _GOING_ON:
            if time.monotonic() > deadline:
                raise _error(f"the image is {found['status']} after {_ACTIVE} seconds")
            time.sleep(_PAUSE)
        is_right = found["status"] == "active" and found.get("size") == len(content)
        if found.get("os_hash_algo") == "sha512":
            is_right = is_right and found.get("os_hash_value") == content.digest
        if not is_right:
            status = make_printable(str(found["status"]))
            raise _error(
                f"OpenStack has another image than was sent (status {status}, "
                f"{found.get('size')} bytes instead of {len(content)})"
            )

    def _delete(self, number: str) -> None:
        with _explained(f"can't delete the image {number}"):
            self._call("DELETE", f"/images/{number}")

    def _call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        from openstack.exceptions import raise_from_response

        response = self.connection.image.request(path, method, json=body)
        raise_from_response(response)
        answer = response.json() if response.content else {}
        return answer if isinstance(answer, dict) else {}


class _Content:
    """A file as the library that sends it reads it, once. `digest` is the SHA-512, in hex."""

    def __init__(self, file: BinaryIO, progress: Progress) -> None:
        self._file = file
        self._progress = progress
        self._size = os.fstat(file.fileno()).st_size
        self._hash = hashlib.sha512()
        self.sent = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read(1 << 20):
            yield piece

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        self._hash.update(piece)
        self.sent += len(piece)
        self._progress(self.sent, self._size)
        return piece

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


@contextmanager
def logged_in(account: Account) -> Iterator[Cloud]:
    """Log in to a cloud that has images. Raises MorphError if that fails."""
    from openstack import connect

    with _explained("Failed to authenticate with OpenStack"):
        connection = connect(
            load_yaml_config=False,
            load_envvars=False,
            auth_type="v3password",
            auth={
                "auth_url": account.url,
                "username": account.user,
                "password": account.password,
                "project_name": account.project,
                "user_domain_name": account.user_domain,
                "project_domain_name": account.project_domain,
            },
            region_name=account.region or None,
            verify=True,
            cacert=None if account.ca is None else str(account.ca.absolute()),
            api_timeout=_ANSWER,
            app_name="morph",
        )
    with connection:
        with _explained("Failed to authenticate with OpenStack"):
            connection.authorize()
        with _explained("OpenStack has no images to offer"):
            if connection.image.get_endpoint() is None:
                raise _error("this cloud, or region, has no image service")
        yield Cloud(connection)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn errors of the libraries into MorphError."""
    from keystoneauth1.exceptions import ClientException
    from openstack.exceptions import SDKException
    from requests import RequestException

    try:
        yield
    except (ClientException, SDKException, RequestException) as error:
        text = make_printable(" ".join(str(error).split()))
        raise _error(f"{what}: {text}") from error


def _error(message: str) -> MorphError:
    return MorphError(message, reason=Reason.DEPLOY)
