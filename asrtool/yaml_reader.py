"""A strict YAML reader: the plain values of YAML 1.2, keys that are text and do not repeat, and bounded sizes.

PyYAML's own loaders follow YAML 1.1, where `1:30` is 90, `010` is 8, `on` is true and `1e-3` is text. Here `1:30`,
`010`, `0x1F`, `1_000`, `yes`, `on` and dates are text, `1e-3` is a number, and only `true` and `false` are bools.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from asrtool.errors import UserError, require_file

MAX_BYTES = 256 << 10  # of a file: the longest configuration of the recipes has 3 kB, and 256 kB take seconds to parse
MAX_DEPTH = 20  # of nesting; a configuration has 4
MAX_NODES = 20_000  # values of a file; an alias counts each time. A number for each of 1,000 layers fits
MAX_DIGITS = 40  # of an integer; 64 bits have 20

NULL = re.compile(r"~|null|Null|NULL|")
BOOL = re.compile(r"true|True|TRUE|(?P<false>false|False|FALSE)")
INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
MERGE = "<<"  # the key of YAML 1.1 whose mappings supply defaults


class InvalidYaml(Exception):
    """A text cannot be read as YAML. The message is one line."""


def read_yaml(path: Path, what: str, hint: str) -> Any:
    """Returns the value of a YAML file. UserError that names the file if it is missing, too large or not such YAML."""
    path = require_file(path, what, hint)
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:  # a failed read does not know its file
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) > MAX_BYTES:
        raise UserError(f"{path}: more than {MAX_BYTES >> 10} kB, too large for a {what}; {hint}")
    try:
        return parse_yaml(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not YAML: not UTF-8 text ({error.reason} at byte {error.start}); {hint}") from error
    except InvalidYaml as error:
        raise UserError(f"{path}: not YAML: {error}") from error


def parse_yaml(text: str) -> Any:
    """Returns the value of a YAML text: dicts, lists, text, numbers, bools and None. Raises InvalidYaml."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else loader.value_of(node, 0)
    except yaml.YAMLError as error:
        raise InvalidYaml(" ".join(str(error).split())[:300]) from error


def dump_yaml(value: Any) -> str:
    """Returns a YAML text that `parse_yaml`, and any reader of YAML 1.1, reads as `value`."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)


class _Loader(yaml.BaseLoader):
    """Parses a text to nodes, and converts these to values."""

    def __init__(self, text: str):
        super().__init__(text)
        self.depth = 0
        self.num_values = 0

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        """Returns the next node; refuses deep nesting before Python's own stack is full."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise InvalidYaml(f"nested more than {MAX_DEPTH} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def value_of(self, node: yaml.Node, depth: int) -> Any:
        """Returns the value of a node. An alias is copied from its anchor, so that its size counts."""
        self.num_values += 1
        if self.num_values > MAX_NODES or depth > MAX_DEPTH:
            raise InvalidYaml(f"more than {MAX_NODES} values, or an alias that contains itself")
        if not node.tag.startswith("tag:yaml.org,2002:") or node.tag.rpartition(":")[2] not in ("str", "seq", "map"):
            raise InvalidYaml(f"the tag {node.tag[:50]}{_place(node)}; write the plain value")
        if isinstance(node, yaml.ScalarNode):
            return _text(node) if node.style else _scalar(node.value)
        if isinstance(node, yaml.SequenceNode):
            return [self.value_of(item, depth + 1) for item in node.value]
        assert isinstance(node, yaml.MappingNode)
        return self._mapping(node, depth)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.value_of(key_node, depth + 1)
            if not isinstance(key, str):
                raise InvalidYaml(f"a key that is not text{_place(key_node)}; put it in quotes, or fix its name")
            if key in mapping:
                raise InvalidYaml(f"the key '{key[:50]}' a second time{_place(key_node)}")
            mapping[key] = self.value_of(value_node, depth + 1)
        merged = mapping.pop(MERGE, [])
        for defaults in reversed(merged if isinstance(merged, list) else [merged]):
            if not isinstance(defaults, dict):
                raise InvalidYaml(f"'{MERGE}' of a value that has no keys{_place(node)}")
            mapping = defaults | mapping
        return mapping


def _scalar(text: str) -> Any:
    if NULL.fullmatch(text):
        return None
    if match := BOOL.fullmatch(text):
        return match["false"] is None
    if INT.fullmatch(text):
        if len(text) > MAX_DIGITS:
            raise InvalidYaml(f"an integer of {len(text)} digits")
        return int(text)
    if FLOAT.fullmatch(text):
        return float(text)
    return float(text.replace(".", "", 1)) if NOT_FINITE.fullmatch(text) else text


def _text(node: yaml.ScalarNode) -> str:
    if any("\ud800" <= character <= "\udfff" for character in node.value):
        raise InvalidYaml(f"half of a surrogate pair{_place(node)}, which is not a character")
    return node.value


def _place(node: yaml.Node) -> str:
    return f" in line {node.start_mark.line + 1}"


class _Dumper(yaml.SafeDumper):
    """Quotes text that `_scalar` would read as another value, and text that YAML 1.1 would."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", INT, list("-+0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"(?:{FLOAT.pattern})\Z"), list("-+.0123456789"))
