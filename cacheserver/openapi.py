"""The description of the server's requests for programs, as OpenAPI 3.1."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

Document = dict[str, Any]

_TEXT: Document = {"type": "string"}
_SHA1: Document = {"type": "string", "pattern": "^[0-9a-fA-F]{40}$"}
_SHA256: Document = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_BYTES: Document = {"application/octet-stream": {}}

_REASONS = {
    200: "As asked for",
    201: "Stored",
    206: "The part that was asked for",
    304: "The client has it already",
    400: "No such request",
    401: "A token is needed",
    403: "Not allowed, or a name that could lead elsewhere",
    404: "Not there, or the server does not write",
    405: "Not by this method",
    409: "Stored already with other content, or not uploaded yet",
    411: "A Content-Length is needed",
    413: "Too large",
    416: "Nothing at that place of the file",
    422: "Not what its digest says",
    500: "The disk refuses",
    502: "The other server does not have it, or lies",
    503: "Too much at once, come again; or the artifacts can't be reached",
    507: "No room",
}
_WRITE_ERRORS = (400, 401, 403, 404, 405, 413, 500, 507)


@cache
def describe_requests() -> Document:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Morph cache server",
            "version": "1.0",
            "description": "Artifacts of Morph, and answers about git repositories.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {**_artifacts(), **_repositories(), **_writing(), **_itself()},
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _artifacts() -> Document:
    name = _parameters(filename="Name of the file, such as KEY.chunk.NAME")
    found = (206, 304, 400, 403, 404, 416, 500)
    digest = {
        "name": "Repr-Digest",
        "in": "header",
        "required": True,
        "description": "sha-256=:BASE64: (RFC 9530)",
        "schema": _TEXT,
    }
    return {
        "/1.0/artifacts": {
            "get": _operation("An artifact", name, _BYTES, found),
            "head": _operation("Is there such an artifact?", name, {}, found),
            "post": _operation(
                "Which of these artifacts are there?",
                (),
                _json({"type": "object", "additionalProperties": {"type": "boolean"}}),
                (400, 411, 413, 500),
                _body({"type": "array", "items": _TEXT}),
            ),
            "put": _write(
                "Store one artifact",
                (*name, digest),
                _json(_object(new={"type": "boolean"})),
                (201, 409, 411, 422),
                {"required": True, "content": _BYTES},
            ),
            "delete": _write("Remove one artifact", name, _json(_status()), ()),
        }
    }


def _repositories() -> Document:
    repo = "URL of the repository"
    ref = _object(repo=_TEXT, ref=_TEXT)
    resolved = _object(repo=_TEXT, ref=_TEXT, sha1=_SHA1, tree=_SHA1)
    error = _object(repo=_TEXT, ref=_TEXT, error=_TEXT)
    question = _object(repo=_TEXT, ref=_TEXT, filename=_TEXT)
    entry = _object(mode=_TEXT, kind={"enum": ["blob", "tree", "commit"]}, sha1=_SHA1)
    batch = (400, 411, 413)
    path: Document = {**_parameters(path="")[0], "required": False}
    path["description"] = "As git ls-tree takes it"
    return {
        "/1.0/sha1s": {
            "get": _operation(
                "Commit and tree of a ref",
                _parameters(repo=repo, ref="Branch, tag or commit"),
                _json(resolved),
                (400, 404),
            ),
            "post": _operation(
                "Commits and trees of many refs",
                (),
                _json({"type": "array", "items": {"anyOf": [resolved, error]}}),
                batch,
                _body({"type": "array", "items": ref}),
            ),
        },
        "/1.0/files": {
            "get": _operation(
                "A file of a commit",
                _parameters(repo=repo, ref="Full commit id", filename="Path of the file"),
                _BYTES,
                (400, 404, 503),
            ),
            "post": _operation(
                "Many files",
                (),
                _json(
                    {
                        "type": "array",
                        "items": {
                            "anyOf": [
                                _object(repo=_TEXT, ref=_TEXT, filename=_TEXT, data=_TEXT),
                                _object(repo=_TEXT, ref=_TEXT, filename=_TEXT, error=_TEXT),
                            ]
                        },
                    }
                ),
                (*batch, 503),
                _body({"type": "array", "items": question}),
            ),
        },
        "/1.0/trees": {
            "get": _operation(
                "A directory of a commit",
                (*_parameters(repo=repo, ref="Full commit id"), path),
                _json(
                    _object(
                        repo=_TEXT,
                        ref=_TEXT,
                        tree={"type": "object", "additionalProperties": entry},
                    )
                ),
                (400, 404, 503),
            )
        },
        "/1.0/bundles": {
            "get": _operation(
                "The bundle of a repository",
                _parameters(repo=repo),
                _BYTES,
                (206, 304, 400, 404, 416),
            )
        },
    }


def _writing() -> Document:
    listed = _object(atime={"type": "number"}, size={"type": "integer"}, used={"type": "integer"})
    sizes = _object(size={"type": "integer"}, used={"type": "integer"})
    fetch = _object(host=_TEXT, cacheid=_TEXT, artifacts={"type": "array", "items": _TEXT})
    upload = _path_parameter("sha256")
    return {
        "/1.0/list": {
            "get": _operation(
                "All files, and the room that is left",
                (),
                _json(
                    _object(
                        freespace={"type": "integer"},
                        files={"type": "object", "additionalProperties": listed},
                    )
                ),
                (404, 500),
            )
        },
        "/1.0/uploads/{sha256}": {
            "parameters": [upload],
            "get": _write("Is this file kept aside?", (), _json(_object(sha256=_SHA256)), ()),
            "put": _write(
                "Keep a file aside until it is published",
                (),
                {},
                (201, 411, 422),
                {"required": True, "content": _BYTES},
            ),
        },
        "/1.0/sources/{key}": {
            "parameters": [_path_parameter("key")],
            "post": _write(
                "Give uploaded files their names, all at once",
                (),
                _json(_object(new={"type": "boolean"})),
                (201, 409, 411),
                _body({"type": "object", "additionalProperties": _SHA256, "minProperties": 1}),
            ),
        },
        "/1.0/fetch": {
            "post": _write(
                "Fetch artifacts from another cache server",
                (),
                _json({"type": "object", "additionalProperties": sizes}),
                (409, 411, 502),
                _body(fetch),
            )
        },
    }


def _itself() -> Document:
    health = _object(status=_TEXT)
    health["properties"]["free-space"] = {"type": "integer"}
    return {
        "/healthz": {"get": _operation("Can artifacts be reached?", (), _json(health), (503,))},
        "/metrics": {"get": _operation("Counts for Prometheus", (), {"text/plain": {}}, ())},
        "/openapi.json": {"get": _operation("This description", (), _json({"type": "object"}), ())},
    }


def _operation(
    summary: str,
    parameters: tuple[Document, ...],
    content: Document,
    statuses: tuple[int, ...],
    body: Document | None = None,
) -> Document:
    """What a request is for, and which answers there are; `content` is that of 200."""
    responses: Document = {str(each): {"description": _REASONS[each]} for each in statuses}
    responses["200"] = {"description": _REASONS[200], "content": content}
    operation: Document = {"summary": summary, "responses": responses}
    if parameters:
        operation["parameters"] = list(parameters)
    if body is not None:
        operation["requestBody"] = body
    return operation


def _write(
    summary: str,
    parameters: tuple[Document, ...],
    content: Document,
    statuses: tuple[int, ...],
    body: Document | None = None,
) -> Document:
    errors = tuple(dict.fromkeys((*statuses, *_WRITE_ERRORS)))
    operation = _operation(summary, parameters, content, errors, body)
    return {**operation, "security": [{"token": []}, {}]}


def _parameters(**described: str) -> tuple[Document, ...]:
    return tuple(
        {"name": name, "in": "query", "required": True, "description": text, "schema": _TEXT}
        for name, text in described.items()
    )


def _path_parameter(name: str) -> Document:
    return {"name": name, "in": "path", "required": True, "schema": _TEXT}


def _object(**properties: Mapping[str, Any]) -> Document:
    return {"type": "object", "properties": dict(properties), "required": list(properties)}


def _status() -> Document:
    return _object(status={"type": "integer"}, reason=_TEXT)


def _json(schema: Document) -> Document:
    return {"application/json": {"schema": schema}}


def _body(schema: Document) -> Document:
    return {"required": True, "content": _json(schema)}
