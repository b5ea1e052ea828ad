"""The licence of a teacher, where its model card or its place says one; a student's weights derive from it."""

from pathlib import Path
from typing import Any

import yaml

from unistep.errors import UserError
from unistep.export.student import UNKNOWN_LICENCE, Student
from unistep.teachers.diffusers.folder import open_folder


def licence_of(student: Student) -> str:
    """An identifier, or `unknown: see the teacher`."""
    source = student.teacher.get("source", "")
    if source.startswith("embedded:"):
        return "apache-2.0"  # unistep's own weights
    name = (
        source.removeprefix("diffusers:") if source.startswith("diffusers:") else student.config["codec"].get("source")
    )
    for folder in (folders for folders in (pipeline_folder(name), Path(source)) if folders is not None):
        said = card_licence(folder / "README.md")
        if said:
            return said
    return UNKNOWN_LICENCE


def pipeline_folder(name: str | None) -> Path | None:
    """Where a pipeline lies, None where it is not to be found."""
    try:
        return None if name is None else open_folder(name).path
    except UserError:
        return None


def card_licence(card: Path) -> str | None:
    """The `license` (with `license_name`, if it is `other`) of a model card's front matter."""
    try:
        text = card.read_text()
        front: Any = yaml.safe_load(text.split("---")[1]) if text.startswith("---") else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, IndexError):
        return None
    if not isinstance(front, dict) or not isinstance(front.get("license"), str):
        return None
    name = front.get("license_name")
    return f"{front['license']} ({name})" if isinstance(name, str) else front["license"]
