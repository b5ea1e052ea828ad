"""YAML text to plain values, with nothing guessed and nothing dropped."""

import re
from typing import Any

import yaml

from unistep.errors import UserError, brief, shortened

MOST_NODES = 100_000  # values in one text: aliases of aliases grow without end from a few lines


class Loader(yaml.SafeLoader):
    """Safe YAML that reads 1e-3 as a number and refuses a key given twice and a value that holds itself."""

    def construct_document(self, node: Any) -> Any:
        if count_nodes(node, {}) > MOST_NODES:
            raise yaml.constructor.ConstructorError(
                None, None, f"more than {MOST_NODES:,} values, aliases resolved", node.start_mark
            )
        return self.construct_object(node, deep=True)  # all at once: what is unfinished cannot be referred to

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        seen = set()
        for key in keys:
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key}: given twice", node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def count_nodes(node: Any, known: dict[int, int]) -> int:
    """Returns how many values a node stands for with every alias written out; `known` holds the nodes counted."""
    if id(node) not in known:
        known[id(node)] = 0  # a node inside itself, which is refused when it is constructed
        children = node.value if isinstance(node.value, list) else ()
        inner = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        known[id(node)] = 1 + sum(count_nodes(part, known) for part in inner)
    return known[id(node)]


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
        raise UserError(f"{source}{line}: no readable YAML ({shortened(problem)})") from error
    except RecursionError as error:
        raise UserError(f"{source}: no readable YAML (nested too deeply)") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # what PyYAML's constructors stumble over
        reason = shortened(f"{type(error).__name__}: {error}".split("; use sys.")[0])
        raise UserError(f"{source}: no readable YAML ({reason}); quote what is meant as text") from error


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
                raise UserError(f"{place}found the key {brief(key)}, expected text; put it in quotes")
            require_plain(inner, source, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            require_plain(inner, source, (*path, str(index)))
    elif isinstance(value, str) and "\0" in value:
        raise UserError(f"{place}found a text with a zero byte, expected one without")
    elif not isinstance(value, str | int | float | None):
        raise UserError(
            f"{place}found {brief(value)} ({type(value).__name__}), expected text or a number; quote a text"
        )
