"""The API's description for other programs, in OpenAPI 3.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fcn_kernels

from .limits import Limits

_NUMBER, _INTEGER, _TEXT = {"type": "number"}, {"type": "integer"}, {"type": "string"}
_BASE64 = {"type": "string", "contentEncoding": "base64"}


def document(networks: Sequence[str], limits: Limits) -> dict[str, Any]:
    parameters = [
        _parameter("network", "Which network; the first unless given.", networks),
        _parameter("output", "What is sent back.", ["labels", "overlay", "confidence", "json"]),
        {
            "name": "task",
            "in": "query",
            "description": "Of networks of several tasks; the first unless given.",
            "schema": _TEXT,
        },
        _parameter(
            "picture",
            "With output=json: whether the picture as it was seen comes with it, as a JPEG.",
            ["false", "true"],
        ),
    ]
    predict = {
        "summary": "Label one picture",
        "description": f"The body is the file: at most {limits.upload_bytes / 1e6:g} MB and {limits.megapixels:g} "
        "megapixels, turned as its EXIF orientation says. labels: a PNG of class indices with the classes' colors as "
        "its palette (16-bit gray above 256 classes); overlay: colors over the picture, with a legend; confidence: the "
        "softmax probability of each pixel's class, as gray; json: all of them.",
        "parameters": parameters,
        "requestBody": {"required": True, "content": {"image/*": {}}},
        "responses": {
            "200": {
                "description": "Labels",
                "headers": {"Server-Timing": {"description": "Milliseconds of each part.", "schema": _TEXT}},
                "content": {"image/png": {}, "application/json": {"schema": {"$ref": "#/components/schemas/Labels"}}},
            },
            "400": _error("Empty, or ended too early"),
            "403": _error("A host name that is not this server's, or a page of another site"),
            "408": _error("Did not arrive in time"),
            "413": _error("More bytes or pixels than are taken"),
            "415": _error("Not a picture that can be read"),
            "422": _error("A wrong parameter, or a picture too small for the network"),
            "503": _error("Too many pictures at a time; Retry-After says when to come again, in seconds"),
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "fcn serve", "version": fcn_kernels.__version__},
        "paths": {
            "/predict": {"post": predict},
            "/networks": {"get": _get("Networks, their classes and colors, and the limits", "application/json")},
            "/health": {"get": _get("200 where pictures can be labeled, else 503", "application/json")},
            "/metrics": {"get": _get("Numbers about this server, for Prometheus", "text/plain")},
            "/openapi.json": {"get": _get("This document", "application/json")},
        },
        "components": {"schemas": {"Labels": _LABELS, "Error": _object(error=_TEXT)}},
    }


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_LABELS = _object(
    network=_TEXT,
    precision=_TEXT,
    width=_INTEGER,
    height=_INTEGER,
    batch={**_INTEGER, "description": "Pictures of one size that ran together."},
    seconds={
        "type": "object",
        "additionalProperties": _NUMBER,
        "description": "receive, decode, wait, network, encode.",
    },
    tasks=_array(
        _object(
            name={**_TEXT, "description": "Empty where there is one task."},
            confidence={**_NUMBER, "description": "Mean over the picture."},
            classes=_array(
                _object(
                    index=_INTEGER,
                    name=_TEXT,
                    color=_TEXT,
                    pixels=_INTEGER,
                    share=_NUMBER,
                    confidence={"type": ["number", "null"], "description": "Mean over its pixels."},
                )
            ),
            labels={**_BASE64, "contentMediaType": "image/png"},
            confidence_map={**_BASE64, "contentMediaType": "image/png"},
            colors={**_BASE64, "contentMediaType": "image/png", "description": "Above 256 classes alone."},
        )
    ),
    picture={**_BASE64, "contentMediaType": "image/jpeg"},
)


def _parameter(name: str, description: str, choices: Sequence[str]) -> dict[str, Any]:
    schema = {"type": "string", "enum": list(choices), "default": choices[0]}
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _error(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }


def _get(summary: str, media: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": summary, "content": {media: {}}}}}
