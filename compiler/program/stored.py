"""Frozen dataclasses as JSON text and back, so that what the compiler found out can be kept on disk without pickle."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from ..calls.declaration import Access, Declaration, Extremum, Symbol
from ..passes.landings import Landing, Structure, Support
from .expression import Affine, Gather
from .program import Range

CLASSES = {
    c.__name__: c for c in (Access, Declaration, Extremum, Symbol, Affine, Gather, Range, Structure, Support, Landing)
}


def to_text(value: Any) -> str:
    """JSON of a tree of the classes above, tuples, frozen sets, strings and numbers."""
    return json.dumps(_encode(value), sort_keys=True)


def from_text(text: str | bytes) -> Any:
    """The tree again.

    Raises
    ------
    ValueError, KeyError, TypeError
        If the text was not made by `to_text`.
    """
    return _decode(json.loads(text))


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = {f.name: _encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"class": type(value).__name__, **fields}
    if isinstance(value, tuple):
        return [_encode(v) for v in value]
    if isinstance(value, frozenset):
        return {"class": "set", "items": sorted(value)}
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decode(v) for v in value)
    if isinstance(value, dict):
        kind = value.pop("class")
        if kind == "set":
            return frozenset(value["items"])
        return CLASSES[kind](**{k: _decode(v) for k, v in value.items()})
    return value
