"""yaml-extract: prints one value out of a YAML file.

usage: yaml-extract FILE PARAM...

Each PARAM leads one step down: the key of a mapping, the index of a list (from 0; negative ones
count from the end), or KEY=VALUE for the item of a list that has that value under that key.
What is found is printed as it is, and as YAML when it is a list or a mapping.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml


class NotFoundError(Exception):
    """A parameter leads nowhere."""


def step_down(value: Any, parameter: str) -> Any:
    if isinstance(value, dict):
        for key in value:
            if key == parameter or str(key) == parameter:
                return value[key]
        raise NotFoundError(f"there is no key {parameter}")
    if not isinstance(value, list):
        raise NotFoundError(f"there is nothing to look for {parameter} in: {value!r}")
    key, equals, wanted = parameter.partition("=")
    if equals:
        for item in value:
            if isinstance(item, dict) and key in item and str(item[key]) == wanted:
                return item
        raise NotFoundError(f"no item has {parameter}")
    try:
        return value[int(parameter)]
    except ValueError:
        raise NotFoundError(f"{parameter} is neither an index nor KEY=VALUE") from None
    except IndexError:
        raise NotFoundError(f"there is no item {parameter}, only {len(value)}") from None


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] in (["-h"], ["--help"]):
        print((__doc__ or "").partition("\n\n")[2], end="")
        return 0
    if not arguments:
        print("usage: yaml-extract FILE PARAM...", file=sys.stderr)
        return 1
    path, *parameters = arguments
    try:
        value = yaml.safe_load(Path(path).read_bytes())
        for parameter in parameters:
            value = step_down(value, parameter)
    except OSError as error:
        print(f"yaml-extract: {path}: {error.strerror}", file=sys.stderr)
        return 1
    except (yaml.YAMLError, NotFoundError) as error:
        print(f"yaml-extract: {path}: {error}", file=sys.stderr)
        return 1
    if isinstance(value, dict | list):
        yaml.safe_dump(value, sys.stdout, default_flow_style=False, allow_unicode=True)
    else:
        print(value)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
