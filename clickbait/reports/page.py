"""The frame of the HTML pages: one self-contained file each, without scripts or requests.

A page is a Jinja template in a file, which extends `templates/page.html`. Jinja escapes every text, and the
page's content security policy allows nothing but its inline styles: names and headlines may be hostile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jinja2

DASH = "\u2013"
"""Stands for a missing figure."""


def template(
    package: str,
    name: str,
    *,
    filters: Mapping[str, Callable[..., str]],
    undefined: type[jinja2.Undefined] = jinja2.StrictUndefined,
) -> jinja2.Template:
    """The template `templates/<name>` of a package, with `filters`; render it with a `title` and its data."""
    packages = [jinja2.PackageLoader(package), jinja2.PackageLoader("clickbait.reports")]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(packages),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=undefined,
    )
    environment.filters |= filters
    return environment.get_template(name)
