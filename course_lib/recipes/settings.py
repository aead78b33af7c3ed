"""Settings of a recipe: checked when they are made, changed by name, and each an option of the command line."""

import json
import reprlib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass, replace
from types import NoneType
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from course_lib.errors import InputError

CHECKED = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
RANGES = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


@dataclass(frozen=True)
class Option:
    """A setting as the command line has it.

    Args:
        name: of the field, such as "shift_px".
        kind: int, float, str or bool; None for a part of the settings, such as the augmentation, which an option
            can only switch off.
        help: what the field's description says.
        part: the part of the settings that the field belongs to, such as "augmentation"; None for the settings.
    """

    name: str
    kind: type | None
    help: str
    part: str | None = None

    @property
    def flag(self) -> str:
        words = self.name.replace("_", "-")
        return f"--{words}" if self.kind else f"--no-{words}"


def options(kind: type, part: str | None = None) -> Iterator[Option]:
    """Yield the options of a class of settings, and after each of its parts those of the part."""
    for name, annotation in typing.get_type_hints(kind, include_extras=True).items():
        description = next(note.description for note in annotation.__metadata__ if isinstance(note, FieldInfo))
        plain = _plain(annotation)
        if is_dataclass(plain):
            yield Option(name, None, description, part)
            yield from options(plain, part=name)
        else:
            yield Option(name, plain, description, part)


def change(settings: Any, changes: Mapping[str, Any]) -> Any:
    """Return settings with new values for some fields, its own or those of its parts.

    Args:
        changes: names and values; a part that is None is left out: {"labels": 100, "augmentation": None}. "none"
            stands for None where a name need not be given, for the command line has words only.

    Raises:
        InputError: there is no such field, the value cannot be, or two changes contradict each other.
    """
    known = {option.name: option for option in options(type(settings))}
    optional = {
        name for name, kind in typing.get_type_hints(type(settings)).items() if NoneType in typing.get_args(kind)
    }
    own, of_parts = {}, {}
    for name, value in changes.items():
        if name not in known:
            raise InputError(f"{name} is no setting of this recipe: use {', '.join(known)}")
        part = known[name].part
        if part is None:
            own[name] = None if value == "none" and name in optional else value
        elif part in changes:
            raise InputError(f"{part}={changes[part]!r} and {name}={value!r} contradict each other: leave one out")
        else:
            of_parts.setdefault(part, {})[name] = value
    try:
        for part, inner in of_parts.items():
            kind = _plain(typing.get_type_hints(type(settings))[part])
            own[part] = replace(getattr(settings, part) or kind(), **inner)
        return replace(settings, **own)
    except ValidationError as error:
        raise InputError(explain(error)) from error


def flags(kind: type, changes: Mapping[str, Any]) -> list[str]:
    """Return the words of the command line that make these changes to settings of a class."""
    known = {option.name: option for option in options(kind)}
    words = []
    for name, value in changes.items():
        flag = known[name].flag
        if value is None and known[name].kind is str:
            words += [flag, "none"]
        elif known[name].kind is bool and not value:
            words.append(flag.replace("--", "--no-", 1))
        elif known[name].kind in (bool, None):
            words.append(flag)
        else:
            words += [flag, str(value).removesuffix(".0") if isinstance(value, float) else str(value)]
    return words


def from_record(kind: type, values: Mapping[str, Any]) -> Any:
    """Build settings from the values in a record.

    Raises:
        InputError: they are not those of this class.
    """
    try:
        return TypeAdapter(kind).validate_json(json.dumps(values))
    except ValidationError as error:
        raise InputError(f"these are no settings of {kind.__name__} ({explain(error)})") from error


def explain(error: ValidationError) -> str:
    """Say in one line which values were found and which are needed."""
    lines = []
    for one in error.errors(include_url=False):
        name = ".".join(str(part) for part in one["loc"])
        limits = [f"use {words} {one['ctx'][key]}" for key, words in RANGES.items() if key in one.get("ctx", {})]
        lines.append(f"{name}={reprlib.repr(one['input'])}: {limits[0] if limits else one['msg']}")
    return "; ".join(lines)


def _plain(annotation: Any) -> Any:
    """Return the class that an annotation is about: int of `Annotated[int | None, …]`, str of a `Literal`."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        (annotation,) = (kind for kind in typing.get_args(annotation) if kind is not NoneType)
    if typing.get_origin(annotation) is typing.Literal:
        return type(typing.get_args(annotation)[0])
    return annotation
