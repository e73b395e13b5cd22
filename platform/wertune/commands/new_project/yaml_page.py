"""A configuration as YAML for people: every field with its value, and above it what it means."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from wertune.base.config import Draw

WIDTH = 110


def yaml_page(config: BaseModel, verbatim: Mapping[str, str] | None = None) -> str:
    """The whole of `config`, which loads as the same; a key of `verbatim` gets that text in the place of its value."""
    return "\n".join(_lines(config, 0, verbatim or {})) + "\n"


def _lines(config: BaseModel, indent: int, verbatim: Mapping[str, str]) -> Iterator[str]:
    margin = " " * indent
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        section = isinstance(value, BaseModel) and not isinstance(value, Draw)
        if section and not indent:
            yield ""
        for line in textwrap.wrap(meaning(field, value), WIDTH - indent):
            yield f"{margin}# {line}"
        if name in verbatim:
            yield f"{name}:\n{textwrap.indent(verbatim[name].rstrip(), '  ')}"
        elif section:
            yield f"{margin}{name}:"
            yield from _lines(value, indent + 2, {})
        else:
            yield f"{margin}{name}: {flow(config.model_dump(mode='json', include={name})[name])}"


def meaning(field: FieldInfo, value: Any) -> str:
    """The field's choices and description; of a section, what its class says of itself."""
    text = field.description or ""
    if not text and isinstance(value, BaseModel):
        return (type(value).__doc__ or "").strip().split("\n\n")[0]
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return " | ".join(map(str, choices)) + f": {text}" if choices else text


def flow(value: Any) -> str:
    """In one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")
