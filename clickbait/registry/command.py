"""The registry's command line: `python -m clickbait.registry --help`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from clickbait import cli
from clickbait.registry.registry import Registry


def _run(args: Sequence[str]) -> None:
    parser = cli.Parser(prog="python -m clickbait.registry", description="Versions and aliases of the model.")
    parser.add_argument("--uri", default="artifacts/registry", help="the registry's folder or gs:// URI")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="versions and the aliases that point at them")
    for command, text in (
        ("show", "print a version's manifest"),
        ("verify", "fetch a version and check the SHA-256 of every file"),
    ):
        commands.add_parser(command, help=text).add_argument("ref", help="v3, latest or an alias")
    move = commands.add_parser("set-alias", help="point an alias at a version")
    move.add_argument("version", help="v3")
    move.add_argument("alias", help="production")
    commands.add_parser("rollback", help="point an alias at its previous version").add_argument(
        "alias", help="production"
    )
    arguments = parser.parse_args(args)
    registry = Registry(arguments.uri)
    if arguments.command == "list":
        _list(registry)
    elif arguments.command == "show":
        print(registry.manifest(registry.resolve(arguments.ref)).model_dump_json(indent=2))
    elif arguments.command == "verify":
        print(f"{arguments.ref} is whole: {registry.fetch(arguments.ref)}")
    elif arguments.command == "set-alias":
        alias = registry.set_alias(arguments.version, arguments.alias)
        print(f"{arguments.alias} points at {alias.version}")
    else:
        print(f"{arguments.alias} points at {registry.rollback(arguments.alias)}")


def _list(registry: Registry) -> None:
    aliases = registry.aliases()
    for version in registry.versions():
        manifest = registry.manifest(version)
        names = ", ".join(sorted(name for name, alias in aliases.items() if alias.version == version))
        print(f"{version:6} {manifest.created_at:26} {manifest.base_model:32} {names}".rstrip())


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line. The exit code is a `clickbait.cli.Code`."""
    return cli.exit_code(lambda: _run(sys.argv[1:] if args is None else args))
