"""Write the reference page: every setting with its type, default and meaning.

    python -m core.reference

Types and meaning come from ``core/schema.py``; defaults, and the settings of the options of each
group with their comments, come from ``conf/``. A test checks that the page is up to date.
"""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pydantic import TypeAdapter

from core.composed import CONF, compose_config
from core.schema import ParamGroupSettings, PhaseSettings, Settings, TrainerSettings, WandbSettings

PAGE = CONF.parent / "docs" / "reference" / "configuration.md"
SECTIONS = {
    "": Settings,
    "trainer.": TrainerSettings,
    "wandb.": WandbSettings,
    "param_groups.": ParamGroupSettings,
    "phases.<name>.": PhaseSettings,
}
GROUPS = ("model", "data", "objective", "optim", "optimizer", "scheduler", "trainer", "debug")
PLAIN_TYPES = {
    "integer": "whole number",
    "number": "number",
    "boolean": "true, false",
    "string": "text",
    "null": "null",
    "object": "settings",
}
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def main() -> None:
    PAGE.write_text(reference())
    print(PAGE)


def reference() -> str:
    """The page as Markdown."""
    parts = [
        "# Every setting",
        "Generated from `core/schema.py` and `conf/` by `python -m core.reference`. Set any of "
        "them on the command line: `python train.py trainer.max_epochs=3 optimizer.lr=0.05`. "
        "`python train.py --cfg job` shows the settings of one run.",
    ]
    defaults: Any = OmegaConf.to_container(compose_config())
    for prefix, schema in SECTIONS.items():
        parts.append(f"## {f'`{prefix}`' if prefix else 'The run'}")
        parts.append(table(prefix, schema, defaults))
    parts += [
        "## The options of each group",
        "The files of `conf/`. `null` in a model is filled in from the data; `???` must be given. "
        "Files that begin with `_` are shared by several options.",
    ]
    for group in GROUPS:
        parts.append(f"### `{group}`")
        parts += [option(file) for file in sorted((CONF / group).glob("*.yaml"))]
    return "\n\n".join(parts) + "\n"


def table(prefix: str, schema: type, defaults: dict[str, Any]) -> str:
    section = prefix.rstrip(".")
    values = defaults.get(section, {}) if section else defaults
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for key, node in TypeAdapter(schema).json_schema()["properties"].items():
        if prefix + key + "." in SECTIONS:
            continue
        default = values.get(key)
        shown = "" if isinstance(default, dict) or key not in values else f"`{in_yaml(default)}`"
        meaning = " ".join(node["description"].replace("``", "`").split())
        rows.append(f"| `{prefix}{key}` | {type_in_words(node)} | {shown} | {meaning} |")
    return "\n".join(rows)


def type_in_words(node: dict[str, Any]) -> str:
    """The type of a JSON schema's node, in words."""
    if "anyOf" in node:
        return ", ".join(type_in_words(choice) for choice in node["anyOf"])
    if "enum" in node or "const" in node:
        return ", ".join(f"`{value}`" for value in node.get("enum", [node.get("const")]))
    if node.get("type") == "array":
        return f"list of {type_in_words(node['items']).replace(', ', ' or ')}"
    bounds = [
        f"{sign} {node[name]:g}" for name, sign in BOUNDS.items() if node.get(name, 1e18) < 1e18
    ]
    return " ".join([PLAIN_TYPES[node.get("type", "object")], *bounds])


def in_yaml(value: Any) -> str:
    plain = {None: "null", True: "true", False: "false"}
    return plain[value] if value is None or isinstance(value, bool) else str(value)


def option(file: Path) -> str:
    return f"**`{file.parent.name}={file.stem}`**\n\n```yaml\n{file.read_text().rstrip()}\n```"


if __name__ == "__main__":
    main()
