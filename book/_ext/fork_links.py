"""Make a book that is built on GitHub link to the repository it was built from.

Every Colab, source and issue link of the theme follows two theme options. On GitHub Actions they are set here from the
environment, so a fork's book opens the fork's notebooks although nobody edited `_config.yml`.
"""

import os
from collections.abc import Mapping
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config


def links_from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the theme options that point at the building repository; none outside GitHub Actions."""
    repository = environment.get("GITHUB_REPOSITORY")
    if not repository:
        return {}
    server = environment.get("GITHUB_SERVER_URL") or "https://github.com"
    options = {"repository_url": f"{server}/{repository}"}
    # For a pull request the ref name is "12/merge", which no link can open.
    branch = environment.get("GITHUB_HEAD_REF") or environment.get("GITHUB_REF_NAME")
    if branch:
        options["repository_branch"] = branch
    return options


def follow_the_building_repository(app: Sphinx, config: Config) -> None:
    """Put those options over the ones that came from `_config.yml`."""
    config.html_theme_options.update(links_from_environment(os.environ))


def setup(app: Sphinx) -> dict[str, Any]:
    """Run before the theme reads its options."""
    app.connect("config-inited", follow_the_building_repository, priority=100)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
