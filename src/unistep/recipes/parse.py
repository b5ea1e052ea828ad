"""YAML text to plain values, with nothing guessed and nothing dropped."""

import re
from typing import Any

import yaml

from unistep.errors import UserError


class Loader(yaml.SafeLoader):
    """Safe YAML that reads 1e-3 as a number and refuses a key given twice and a value that holds itself."""

    def construct_document(self, node: Any) -> Any:
        return self.construct_object(node, deep=True)  # all at once: what is unfinished cannot be referred to

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for i, key in enumerate(keys) if key in keys[:i]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"{twice}: given twice", node.start_mark)
        return super().construct_mapping(node, deep)


# YAML 1.1, which PyYAML follows, wants a dot in a float: without this line 1e-3 would be text.
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_yaml(text: str, source: str) -> Any:
    """The value of a YAML text.

    Raises:
        UserError: naming source and line if the text is no YAML.
    """
    try:
        return yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).replace("\n", " ")
        raise UserError(f"{source}{line}: no readable YAML ({problem})") from error
    except RecursionError as error:
        raise UserError(f"{source}: no readable YAML (nested too deeply)") from error


def parse_recipe_text(text: str, source: str) -> dict[str, Any]:
    """A recipe's plain values.

    Raises:
        UserError: if the text is no mapping.
    """
    values = parse_yaml(text, source)
    if not isinstance(values, dict):
        raise UserError(f"{source}: found {type(values).__name__}, expected a mapping such as `kind: distill`")
    return values


def require_plain(value: Any, source: str, path: tuple[str, ...] = ()) -> None:
    """Only text, numbers, true, false, null, lists, and mappings whose keys are text: YAML knows dates and more.

    Raises:
        UserError: naming the path and what was found.
    """
    place = f"{source}: {'.'.join(path)}: " if path else f"{source}: "
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise UserError(f"{place}found the key {key}, expected text; put it in quotes")
            require_plain(inner, source, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            require_plain(inner, source, (*path, str(index)))
    elif not isinstance(value, str | int | float | None):
        raise UserError(f"{place}found {value} ({type(value).__name__}), expected text or a number; quote a text")
