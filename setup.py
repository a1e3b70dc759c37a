"""The README for package indexes; all other metadata is in pyproject.toml.

An index only has the text, so links to files must point to the repository, the URL of which is
`[project.urls] Repository` in pyproject.toml. Without this entry, links are not changed.
"""

import re
import tomllib
from pathlib import Path


def absolute_links(text: str, repository: str, revision: str) -> str:
    """Makes relative links and pictures in Markdown absolute.

    Args:
        text: Markdown with links relative to the root of the repository.
        repository: URL of the repository, such as that of a project on GitHub.
        revision: tag or commit to link to.

    Returns:
        Markdown with absolute links.
    """

    def replace(match: re.Match) -> str:
        picture, label, target = match.groups()
        kind = "raw" if picture else "blob"
        return f"{picture}[{label}]({repository.rstrip('/')}/{kind}/{revision}/{target})"

    return re.sub(r"(!?)\[([^][]*)\]\((?![a-z]+:|#)([^)\s]+)\)", replace, text)


def long_description(root: Path) -> str:
    """Returns the README in a directory, with absolute links if its repository is known."""
    text = (root / "README.md").read_text(encoding="utf-8")
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if not (repository := project.get("urls", {}).get("Repository")):
        return text
    source = (root / "pivq_jax" / "__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)
    assert version, "pivq_jax/__init__.py has no line __version__ = ..."
    return absolute_links(text, repository, f"v{version[1]}")


if __name__ == "__main__":
    from setuptools import setup

    setup(
        long_description=long_description(Path(__file__).parent),
        long_description_content_type="text/markdown",
    )
