"""Hooks of the documentation site: links to files outside docs/ become their paths, and commands their help.

MkDocs calls `on_page_markdown` for every page.
"""

import os
import re
import subprocess
import sys
from typing import Any

COMMANDS = (
    *("recipes", "plan", "teach", "pairs", "distill", "sample", "evaluate", "compare", "export", "convert", "certify"),
)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrites one page."""
    markdown = re.sub(r"\[([^\]]*)\]\(\.\./((?!.*\.md#?)[^)]*)\)", lambda m: f"{m[1]} (`{m[2]}`)", markdown)
    if page.file.src_uri == "reference/commands.md":
        markdown += "\n".join(f"\n## unistep {name}\n\n```text\n{help_of_command(name)}```\n" for name in COMMANDS)
    return markdown


def help_of_command(name: str) -> str:
    """What `unistep NAME --help` prints, 100 columns wide."""
    command = [sys.executable, "-m", "unistep", name, "--help"]
    environment = {**os.environ, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
