"""What the HTML pages share: one self-contained file, no script, no request, light and dark, narrow and wide.

Texts are hostile: the template escapes them, and the page's own policy allows nothing but its inline styles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jinja2

DASH = "\u2013"
"""What stands for a figure that is not there."""

_HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>{{ css|safe }}</style>
</head>
<body>
<main>
"""
_FOOT = """\
</main>
</body>
</html>
"""


def template(
    body: str,
    *,
    style: str = "",
    filters: Mapping[str, Callable[..., str]],
    undefined: type[jinja2.Undefined] = jinja2.StrictUndefined,
) -> jinja2.Template:
    """The page around `body`, the inside of `<main>`; it is rendered with a `title`, and with what the body
    asks for.

    `style` is added to the shared one; `filters` are the body's.
    """
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=undefined
    )
    environment.filters |= filters
    environment.globals["css"] = _CSS + style
    return environment.from_string(_HEAD + body + _FOOT)


_CSS = """
:root { --page:#f6f7f9; --panel:#fff; --ink:#1a1f25; --muted:#5b6570; --line:#dfe4e9;
  --clickbait:#d4500c; --news:#1f6fd1; --good:#1a7f37; --bad:#c62a2f; }
@media (prefers-color-scheme: dark) { :root { --page:#0f1318; --panel:#181d24; --ink:#e7ebef; --muted:#9aa5b1; --line:#2b333d;
  --clickbait:#ff9257; --news:#6db1ff; --good:#4fc270; --bad:#ff7f78; } }
* { box-sizing:border-box; }
body { margin:0; background:var(--page); color:var(--ink); font:15px/1.5 system-ui, sans-serif; -webkit-text-size-adjust:100%; }
main { max-width:1080px; margin:0 auto; padding:24px 16px 64px; }
h1 { font-size:1.7rem; line-height:1.2; margin:8px 0; overflow-wrap:anywhere; }
h2 { font-size:1.15rem; margin:0 0 12px; }
h3 { font-size:1rem; margin:20px 0 8px; }
p { margin:0 0 12px; }
code { font:.9em ui-monospace, monospace; overflow-wrap:anywhere; }
.about { color:var(--muted); display:flex; flex-wrap:wrap; gap:4px 18px; align-items:baseline; margin-bottom:20px; }
.about b { color:var(--ink); font-weight:600; overflow-wrap:anywhere; }
.banner { border:1px solid var(--clickbait); background:color-mix(in srgb, var(--clickbait) 12%, var(--panel));
  border-radius:10px; padding:12px 16px; }
section { background:var(--panel); border:1px solid var(--line); border-radius:12px; padding:20px; margin-bottom:16px; }
.cards { display:grid; grid-template-columns:repeat(auto-fit, minmax(140px, 1fr)); gap:16px 20px; }
.card { border-left:3px solid var(--line); padding-left:12px; }
.name, .note, .muted, figcaption { color:var(--muted); font-size:.86rem; }
.value { font-size:1.6rem; font-weight:650; line-height:1.25; font-variant-numeric:tabular-nums; }
@media (min-width:800px) { .cards { grid-template-columns:repeat(5, 1fr); } }
.scroll { overflow-x:auto; }
.scroll + .cards, .scroll + .plots, .plots + .plots, details { margin-top:20px; }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums; }
th, td { text-align:left; padding:7px 14px 7px 0; border-bottom:1px solid var(--line); vertical-align:middle; }
tr:last-child td { border-bottom:0; }
thead th { color:var(--muted); font-size:.82rem; font-weight:500; white-space:nowrap; }
.n { text-align:right; white-space:nowrap; }
.w { width:34%; min-width:170px; }
.headline { overflow-wrap:anywhere; min-width:180px; }
.bar { display:inline-block; width:min(140px, 55%); height:8px; border-radius:4px; background:var(--line); margin-right:10px;
  overflow:hidden; }
.bar i { display:block; height:100%; background:currentColor; }
.tag { display:inline-block; border-radius:99px; padding:1px 10px; font-size:.82rem; font-weight:600; white-space:nowrap;
  background:color-mix(in srgb, currentColor 13%, transparent); }
.good { color:var(--good); } .bad { color:var(--bad); } .clickbait { color:var(--clickbait); } .news { color:var(--news); }
.plots { display:grid; grid-template-columns:repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap:24px; }
figure { margin:0; min-width:0; }
figcaption { text-align:center; margin-top:6px; }
svg { display:block; width:100%; height:auto; stroke-linejoin:round; }
.confusion { width:100%; max-width:640px; margin:0 auto; grid-column:1/-1; }
.confusion table { table-layout:fixed; }
.confusion td, .confusion th { border:0; padding:6px; text-align:center; }
.confusion td[class] { color:var(--ink); border-radius:8px; padding:14px 6px; border:3px solid var(--panel); }
.confusion .good { background:color-mix(in srgb, var(--good) var(--share), var(--panel)); }
.confusion .bad { background:color-mix(in srgb, var(--bad) var(--share), var(--panel)); }
.confusion b { font-size:1.2rem; }
summary { cursor:pointer; color:var(--muted); }
"""
