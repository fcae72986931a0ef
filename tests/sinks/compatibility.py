"""Whether consumers that know an older JSON Schema can live with events of a newer one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

Schema: TypeAlias = Mapping[str, Any]
BOUNDS = {"minimum": 1, "exclusiveMinimum": 1, "minLength": 1, "maximum": -1, "exclusiveMaximum": -1, "maxLength": -1}
"""Which way a bound may move: a value that is let in now must have been let in before."""


def breaks(old: Schema, new: Schema) -> list[str]:
    """What the newer one lets through that the older one refuses; empty when every new event is an old one too.

    Understands what ``sinks.events.schema`` writes: objects by ``$defs``, unions, arrays, plain types with bounds.
    """
    return list(_union(old, new, old, new, "event"))


def _union(old: Schema, new: Schema, old_root: Schema, new_root: Schema, at: str) -> Iterator[str]:
    """Types of events may come; those that were there stay."""
    before, after = (
        {_tag(one): one for one in _variants(part, root)} for part, root in ((old, old_root), (new, new_root))
    )
    for tag, variant in before.items():
        if tag not in after:
            yield f"{at}: {tag} is gone"
        else:
            yield from _object(variant, after[tag], old_root, new_root, str(tag))


def _object(old: Schema, new: Schema, old_root: Schema, new_root: Schema, at: str) -> Iterator[str]:
    for name in old.get("required", ()):
        if name not in new.get("required", ()):
            yield f"{at}.{name}: was always there"
    for name, part in old["properties"].items():
        if name not in new["properties"]:
            yield f"{at}.{name}: is gone"
        else:
            yield from _value(part, new["properties"][name], old_root, new_root, f"{at}.{name}")


def _value(old: Schema, new: Schema, old_root: Schema, new_root: Schema, at: str) -> Iterator[str]:
    before, after = _variants(old, old_root), _variants(new, new_root)
    for one in after:
        same = [other for other in before if other.get("type") == one.get("type")]
        if not same:
            yield f"{at}: may be {one.get('type') or one.get('enum')} now"
            continue
        yield from _plain(same[0], one, old_root, new_root, at)


def _plain(old: Schema, new: Schema, old_root: Schema, new_root: Schema, at: str) -> Iterator[str]:
    if "enum" in old and not set(new.get("enum", ["anything"])) <= set(old["enum"]):
        yield f"{at}: takes values it did not take"
    if "pattern" in old and new.get("pattern") != old["pattern"]:
        yield f"{at}: has another pattern"
    for bound, way in BOUNDS.items():
        if bound in old and (bound not in new or way * new[bound] < way * old[bound]):
            yield f"{at}: {bound} is looser"
    if old.get("type") == "object":
        yield from _object(old, new, old_root, new_root, at)
    if old.get("type") == "array":
        yield from _value(old["items"], new["items"], old_root, new_root, f"{at}[]")


def _variants(part: Schema, root: Schema) -> list[Schema]:
    if "$ref" in part:
        return _variants(root["$defs"][part["$ref"].rpartition("/")[2]], root)
    if "anyOf" in part:
        return [variant for one in part["anyOf"] for variant in _variants(one, root)]
    return [part]


def _tag(variant: Schema) -> object:
    return tuple(variant["properties"]["type"]["enum"])
