"""The licence of a teacher, where its model card or its place says one; a student's weights derive from it."""

from pathlib import Path
from typing import Any

import yaml

from unistep.export.student import UNKNOWN_LICENCE, Student
from unistep.io.hub import announce_download, is_hub_id
from unistep.io.optional import import_optional

CARD = "README.md"


def licence_of(student: Student) -> str:
    """An identifier, or `unknown: see the teacher`."""
    source = student.teacher.get("source", "")
    if source.startswith("embedded:"):
        return "apache-2.0"  # unistep's own weights
    name = (
        source.removeprefix("diffusers:") if source.startswith("diffusers:") else student.config["codec"].get("source")
    )
    for place in (name, source):
        said = card_licence(card_of(place)) if place else None
        if said:
            return said
    return UNKNOWN_LICENCE


def card_of(place: str) -> Path:
    """The model card in a folder, or of a repository of the hub, which is fetched: it does not come with a pipeline."""
    card = Path(place) / CARD
    if Path(place).is_dir() or not is_hub_id(place):
        return card
    announce_download(place)
    try:
        return Path(import_optional("huggingface_hub", "diffusers").hf_hub_download(place, CARD))
    except Exception:  # whatever the hub's client and its transport raise: the licence is unknown then
        return card


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
