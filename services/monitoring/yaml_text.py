"""Mappings, lists, texts and numbers as YAML; texts are quoted as in JSON, which YAML reads alike.

None of the locked packages, those of the extra `dev` among them, writes YAML, and forty lines need no library more.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

Node: TypeAlias = "Mapping[str, Node] | Sequence[Node] | str | int | float | bool"

#: What needs no quotes as a value: it begins with a letter, and no special character follows.
_PLAIN: Final = re.compile(r"(?!(?:true|false|null|yes|no|on|off|y|n)$)[A-Za-z][A-Za-z0-9_./-]*", re.IGNORECASE)


def dump(node: Node) -> str:
    """A document in block style."""
    return "\n".join(_lines(node)) + "\n"


def _lines(node: Node) -> list[str]:
    if isinstance(node, Mapping):
        return [line for key, value in node.items() for line in _entry(f"{key}:", value)]
    assert not isinstance(node, str)
    assert isinstance(node, Sequence)
    return [line for value in node for line in _item(value)]


def _entry(head: str, value: Node) -> list[str]:
    if _is_scalar(value):
        return [f"{head} {_scalar(value)}"]
    return [head, *(f"  {line}" for line in _lines(value))]


def _item(value: Node) -> list[str]:
    if _is_scalar(value):
        return [f"- {_scalar(value)}"]
    first, *rest = _lines(value)
    return [f"- {first}", *(f"  {line}" for line in rest)]


def _is_scalar(node: Node) -> bool:
    """Also an empty collection: it stands on the line of its key."""
    return isinstance(node, str | int | float) or not node


def _scalar(node: Node) -> str:
    if isinstance(node, str) and _PLAIN.fullmatch(node):
        return node
    return json.dumps(node, ensure_ascii=False)
