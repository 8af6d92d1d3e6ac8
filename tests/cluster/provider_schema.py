"""Writes provider_schema.json: what the Terraform providers' resources take, so that the .tf files are held
against it without a network.

    npm pack @cdktf/provider-google@16.12.1 @cdktf/provider-helm@12.1.2 mkdir google helm && tar xzf
    cdktf-provider-google-*.tgz -C google && tar xzf cdktf-provider-helm-*.tgz -C helm
    python -m tests.cluster.provider_schema google/package/.jsii helm/package/.jsii

Those packages are HashiCorp's own bindings, generated from the providers' schemas (google 6.50.0, helm 3.1.1;
there are no later ones). Only what cluster/terraform uses is kept. A block is `{"attributes": {name: [type,
"required" | "optional" | "computed"]}, "blocks": {name: {"required", "single", "block"}}}`; types are
Terraform's.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

OUT = Path(__file__).with_suffix(".json")
TERRAFORM = Path(__file__).parents[2] / "cluster" / "terraform"
VERSIONS = {"google": "6.50.0", "helm": "3.1.1"}
META = {
    "connection",
    "count",
    "depends_on",
    "for_each",
    "lifecycle",
    "provider",
    "provisioners",
}  # Terraform's own, in every resource
Json = dict[str, Any]


def used() -> dict[str, list[str]]:
    """The kinds of resource and data source in the .tf files: `resource google_storage_bucket` and so on, by
    provider.
    """
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(TERRAFORM.glob("*.tf")))
    found = sorted(set(re.findall(r'^(resource|data) "(\w+)"', text, re.MULTILINE)))
    return {
        name: [f"{kind} {type_}" for kind, type_ in found if type_.startswith(f"{name}_")]
        for name in VERSIONS
    }


class Bindings:
    """One provider's."""

    def __init__(self, path: Path) -> None:
        assembly = json.loads(path.read_text(encoding="utf-8"))
        self._types: Json = assembly["types"]
        self._package: str = assembly["name"]

    def of(self, kind: str, type_: str) -> Json:
        """The schema of a resource or data source."""
        name = _camel(type_ if kind == "data" else type_.partition("_")[2])
        module = f"data{name[0].upper()}{name[1:]}" if kind == "data" else name
        class_ = f"{self._package}.{module}.{module[0].upper()}{module[1:]}"
        block = self._block(f"{class_}Config", self._types[class_])
        for name in META:
            block["attributes"].pop(name, None)
            block["blocks"].pop(name, None)
        return block

    def _block(self, struct: str, reader: Json) -> Json:
        block: Json = {"attributes": {}, "blocks": {}}
        for one in self._types[struct].get("properties", []):
            needed = "optional" if one.get("optional") else "required"
            type_, many = self._type(one["type"])
            if type_ is None:
                continue
            if isinstance(type_, str) and type_.startswith(self._package):
                inner = self._block(type_, self._types.get(f"{type_}OutputReference", {}))
                block["blocks"][_name(one)] = {
                    "required": needed == "required",
                    "single": not many,
                    "block": inner,
                }
            else:
                block["attributes"][_name(one)] = [type_, needed]
        for one in reader.get("properties", []):  # what may only be read
            name = _snake(one["name"])
            if (
                one.get("immutable")
                and not one.get("static")
                and not one["name"].endswith("Input")
                and "primitive" in one["type"]
            ):
                type_, _ = self._type(one["type"])
                if name not in block["attributes"] and name not in {
                    "friendly_unique_id",
                    "fqn",
                    "terraform_resource_type",
                }:
                    block["attributes"][name] = [type_, "computed"]
        return block

    def _type(self, type_: Json) -> tuple[Any, bool]:
        """Terraform's type, or the name of a nested block's; and whether there may be many of it."""
        if "primitive" in type_:
            return {"boolean": "bool", "any": "dynamic"}.get(type_["primitive"], type_["primitive"]), False
        if "collection" in type_:
            inner, _ = self._type(type_["collection"]["elementtype"])
            if isinstance(inner, str) and inner.startswith(self._package):
                return inner, True
            return [{"array": "list"}.get(type_["collection"]["kind"], "map"), inner], False
        if "union" in type_:
            return self._type(
                next(one for one in type_["union"]["types"] if one.get("fqn") != "cdktf.IResolvable")
            )
        name: str = type_["fqn"]
        return (
            "bool" if name == "cdktf.IResolvable" else name if name.startswith(self._package) else None
        ), False


def _name(one: Json) -> str:
    """The attribute as Terraform spells it, which is in the link to the provider's page."""
    link = re.search(
        r"\}?#(\w+)[ }]",
        one.get("docs", {}).get("see", "")
        + one.get("docs", {}).get("summary", "")
        + one.get("docs", {}).get("remarks", ""),
    )
    return link[1] if link else _snake(one["name"])


def _camel(name: str) -> str:
    return re.sub(r"_(\w)", lambda found: found[1].upper(), name)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", lambda found: f"_{found[1].lower()}", name)


def main() -> None:
    bindings = dict(zip(VERSIONS, (Bindings(Path(path)) for path in sys.argv[1:3]), strict=True))
    schemas = {
        name: {kind: bindings[name].of(*kind.split()) for kind in kinds} for name, kinds in used().items()
    }
    OUT.write_text(
        json.dumps(
            {"versions": VERSIONS, "schemas": schemas}, indent=None, separators=(",", ":"), sort_keys=True
        )
        + "\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
