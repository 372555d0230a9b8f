"""Reading and writing settings as YAML: text as typed, no surprises, every error one line that names the setting.

YAML 1.1 reads `no` as false, `1e-3` as text, `010` as 8 and `12:30` as 750. Here numbers and booleans are those of the
YAML 1.2 core schema, and a setting that is text takes its value as typed.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

LARGEST = 64 * 1024
"""Bytes of a settings file, at most."""
DEEPEST = 10
"""Levels of mappings and lists."""
SHOWN = 60
"""Characters of a wrong value that an error shows."""
MOVED = {
    "chain.steps": "chain.num_train_timesteps",
    "chain.prediction": "chain.prediction_type",
    "optim.lr": "optim.learning_rate",
    "optim.lr_end": "optim.learning_rate_end",
}
"""Former names of settings, and what they are called now."""

_TAG = "tag:yaml.org,2002:"
_EXPECTED = {
    "int_type": "a whole number", "float_type": "a number", "finite_number": "a finite number",
    "bool_type": "true or false", "string_type": "text",
}  # fmt: skip
_MAPPINGS = ("model_type", "model_attributes_type", "dataclass_type", "dict_type")
_LIMITS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
Settings = TypeVar("Settings", bound=BaseModel)


class ConfigError(ValueError):
    """A setting that cannot be used; the message names it, what is allowed, and what to do."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with the core schema, and without aliases, which can grow a small file without bound."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - so declared by yaml
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise ConfigError("the settings use a YAML alias (*name); write the value out")
        if self.depth == DEEPEST:
            raise ConfigError(f"the settings are nested too deeply; at most {DEEPEST} levels are allowed")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9][0-9_]*", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
     list("-+0123456789.")),
):  # fmt: skip
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), _first)
_Loader.add_constructor(_TAG + "int", lambda loader, node: int(node.value.replace("_", "")))


def load_settings(root: type[Settings], path: Path, overrides: list[str]) -> Settings:
    """The settings in a YAML file, changed by `overrides`, each "section.name=value".

    Raises:
        ConfigError: the file cannot be read, or a setting is unknown, missing, wrong or stands twice.
    """
    if not path.is_file():
        raise ConfigError(f"no settings file at {path}")
    with path.open("rb") as file:
        data = file.read(LARGEST + 1)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        if len(data) <= LARGEST:
            coding = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "not UTF-8"
            raise ConfigError(f"{path} is {coding}; save it as UTF-8") from None
        text = ""
    if len(data) > LARGEST:
        raise ConfigError(f"{path} is larger than {LARGEST // 1024} KiB, the most that settings may be")
    tree = _read_yaml(text, root, str(path), "")
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds no settings (a mapping such as data: ... is expected)")
    for item in overrides:
        name, equals, value = item.partition("=")
        keys = name.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(f"--set {item}: the form is section.name=value")
        kind: Any = root
        for key in keys:
            kind = _kind_of(kind, key)
        _assign(tree, keys, value if _is_text(kind) else _read_yaml(value, kind, f"--set {name}", name))
    return parse_settings(root, tree)


def parse_settings(root: type[Settings], tree: dict[str, Any]) -> Settings:
    """Settings from nested mappings of plain values. ConfigError for the first that is wrong."""
    for former, name in MOVED.items():
        section, key = former.split(".")
        if isinstance(tree.get(section), dict) and key in tree[section]:
            raise ConfigError(f"{former} is now called {name}; rename it")
    try:
        return root.model_validate_json(json.dumps(tree))  # as JSON, where strict types still take lists for tuples
    except ValidationError as error:
        raise ConfigError(describe(error, root)) from None


def dump_settings(settings: BaseModel) -> str:
    """YAML that `load_settings` reads back to equal settings."""
    return yaml.safe_dump(json.loads(settings.model_dump_json()), sort_keys=False, allow_unicode=True)


def describe(error: ValidationError, root: Any) -> str:
    """The first of pydantic's errors in one line.

    Args:
        root: the class that was constructed.
    """
    first = error.errors(include_url=False)[0]
    keys = [key for key in first["loc"] if isinstance(key, str)]
    where, kind, value = ".".join(keys), first["type"], first["input"]
    shown = repr(value) if len(repr(value)) <= SHOWN else repr(value)[:SHOWN] + "..."
    if kind == "missing":
        return f"setting {where} is missing"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        for key in keys[:-1]:
            root = _kind_of(root, key)
        return f"unknown setting {where}; allowed are {', '.join(_names(root))}"
    if kind == "value_error":
        cause = first["ctx"]["error"]
        text = str(cause)
        return text if not where or text.startswith(f"{where}.") else f"{where}: {text}"
    if kind in _MAPPINGS:
        return f"{where or 'the file'} must be a mapping, not {shown}"
    if kind in _LIMITS:
        for key in keys[:-1]:
            root = _kind_of(root, key)
        return f"{where} is {shown}; {range_in_words(root.model_fields[keys[-1]].metadata)} is needed"
    if kind == "literal_error":
        return f"{where} is {shown}; allowed are {first['ctx']['expected'].replace(' or ', ', ').replace(chr(39), '')}"
    if kind in ("tuple_type", "missing_argument", "too_long", "too_short"):
        return f"{where} is {shown}; 2 values are expected, such as [0.5, 2.0]"
    return f"{where} is {shown}; {_EXPECTED.get(kind, first['msg'])} is expected"


def range_in_words(limits: typing.Iterable[Any]) -> str:
    """What a number may be, from its annotations; completes "... is needed".

    >>> from annotated_types import Ge, Gt, Lt
    >>> range_in_words([Ge(0), Lt(1)]), range_in_words([Gt(0)])
    ('0 to below 1', 'more than 0')
    """
    kinds = ("ge", "gt", "le", "lt")
    bounds = {kind: getattr(limit, kind) for limit in limits for kind in kinds if hasattr(limit, kind)}
    least = f"more than {bounds['gt']}" if "gt" in bounds else str(bounds["ge"])
    if not bounds.keys() & {"le", "lt"}:
        return least if "gt" in bounds else f"at least {least}"
    most = f"below {bounds['lt']}" if "lt" in bounds else str(bounds["le"])
    return f"{least} and {most}" if "gt" in bounds else f"{least} to {most}"


def _read_yaml(text: str, kind: Any, source: str, where: str) -> Any:
    """Plain values of a YAML text. ConfigError names `source`, which is a file or an override, or the setting."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            return None if node is None else _plain(loader, node, kind, where)
        finally:
            loader.dispose()
    except ConfigError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number of more digits than Python reads
        raise ConfigError(f"{source} is not plain YAML: {' '.join(str(error).split())}") from None


def _plain(loader: _Loader, node: yaml.Node, kind: Any, where: str) -> Any:
    """The value of a node, whose setting is of this kind."""
    if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            name = f"{where}.{key}" if where else key
            if key in mapping:
                raise ConfigError(f"{name} stands twice (line {key_node.start_mark.line + 1}); keep one")
            mapping[key] = _plain(loader, value_node, _kind_of(kind, key), name)
        return mapping
    if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
        return [_plain(loader, inner, None, where) for inner in node.value]
    if isinstance(node, yaml.ScalarNode) and node.tag.startswith(_TAG) and "python" not in node.tag:
        return node.value if _is_text(kind) else loader.construct_object(node)
    raise ConfigError(f"{where or 'the file'} is not plain YAML: it has the tag {node.tag}")


def _assign(mapping: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        inner = mapping.setdefault(key, {})
        if not isinstance(inner, dict):
            inner = mapping[key] = {}
        mapping = inner
    mapping[keys[-1]] = value


def _kind_of(kind: Any, key: str) -> Any:
    """The type of a section's setting, without "or None"; None where there is no such setting."""
    if not isinstance(kind, type):
        return None
    if issubclass(kind, BaseModel):
        field = kind.model_fields.get(key)
        found = None if field is None else field.annotation
    else:
        found = typing.get_type_hints(kind).get(key) if dataclasses.is_dataclass(kind) else None
    if typing.get_origin(found) in (typing.Union, types.UnionType):
        return next(inner for inner in typing.get_args(found) if inner is not types.NoneType)
    return found


def _names(kind: Any) -> list[str]:
    if issubclass(kind, BaseModel):
        return list(kind.model_fields)
    return [field.name for field in dataclasses.fields(kind)]


def _is_text(kind: Any) -> bool:
    return kind is str or typing.get_origin(kind) is Literal
