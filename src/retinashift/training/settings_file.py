"""Reading settings from YAML: every scalar is text, which the type of its setting then reads; errors are one line.

So no value surprises: YAML 1.1 alone would read `no` as false, `1e-3` as text, `010` as 8 and `12:30` as 750.
"""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

LARGEST = 64 * 1024  # bytes of a settings file, at most
DEEPEST = 10  # levels of mappings and lists
SHOWN = 60  # characters of a wrong value that an error shows
_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str")}


class ConfigError(ValueError):
    """A setting that cannot be used; the message names it, what is allowed, and what to do."""


class _Loader(yaml.BaseLoader):
    """Text, lists and mappings only; without aliases, which can grow a small file without bound."""

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


def read_tree(path: Path, overrides: list[str]) -> dict[str, Any]:
    """The nested text of a YAML file, changed by `overrides`, each "section.name=value".

    Raises:
        ConfigError: the file cannot be read, a setting stands twice, or an override has another form.
    """
    if not path.is_file():
        raise ConfigError(f"no settings file at {path}")
    if path.stat().st_size > LARGEST:
        raise ConfigError(f"{path} is larger than {LARGEST // 1024} KiB, the most that settings may be")
    data = path.read_bytes()
    try:
        tree = read_yaml(data.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError:
        coding = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "not UTF-8"
        raise ConfigError(f"{path} is {coding}; save it as UTF-8") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds no settings (a mapping such as data: ... is expected)")
    for item in overrides:
        name, equals, value = item.partition("=")
        keys = name.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(f"--set {item}: the form is section.name=value")
        section = tree
        for key in keys[:-1]:
            if not isinstance(section.get(key), dict):
                section[key] = {}
            section = section[key]
        section[keys[-1]] = value
    return tree


def read_yaml(text: str, source: str = "the value") -> Any:
    """Text, lists and mappings of a YAML text; None for an empty one or null. ConfigError names `source`."""
    try:
        node = yaml.compose(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not plain YAML: {' '.join(str(error).split())}") from None
    return None if node is None or node.value in ("", "~", "null") else _plain(node, "")


def _plain(node: yaml.Node, where: str) -> Any:
    if node.tag not in _PLAIN:
        raise ConfigError(f"{where or 'the file'} is not plain YAML: it has the tag {node.tag}")
    if isinstance(node, yaml.SequenceNode):
        return [_plain(inner, where) for inner in node.value]
    if not isinstance(node, yaml.MappingNode):
        return node.value
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = str(key_node.value)
        name = f"{where}.{key}" if where else key
        if key in mapping:
            raise ConfigError(f"{name} stands twice (line {key_node.start_mark.line + 1}); keep one")
        mapping[key] = _plain(value_node, name)
    return mapping


def describe(error: ValidationError) -> str:
    """The first of pydantic's errors in one line."""
    first = error.errors(include_url=False)[0]
    where, reason = ".".join(key for key in first["loc"] if isinstance(key, str)), first["msg"]
    if first["type"] == "missing" and isinstance(first["loc"][-1], str):
        return f"setting {where} is missing"
    if first["type"] == "value_error":  # of our own checks
        text = str(first["ctx"]["error"])
        if not where or f"{where}." in text:
            return text
        unknown = "unknown setting "
        return f"{unknown}{where}.{text.removeprefix(unknown)}" if text.startswith(unknown) else f"{where}: {text}"
    value = repr(first["input"])
    shown = value if len(value) <= SHOWN else value[:SHOWN] + "..."
    return f"{where} is {shown}; {reason[0].lower()}{reason[1:]}".replace("; input should", "; it should")
