"""The command line of a program as one dataclass: a field is an option, its type says how it is read.

    @dataclass(frozen=True)
    class Options:
        out: Path = option(help="folder to write")                                   # required: it has no default
        jobs: int = option(1, help="processes", metavar="N")
        split: tuple[str, ...] = option(("train",), choices=SPLITS, help="one or more (train)")
        media: bool = option(False, help="look into every clip")

    options = parse(Options, __doc__, prog="python -m data_prep.doctor")

A thin layer over argparse and not transformers' HfArgumentParser: importing that takes more than a second, before
every `--help`, and it knows no positional arguments.
"""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

T = TypeVar("T")


def option(
    default: Any = dataclasses.MISSING, *, help: str, positional: bool = False, group: str = "", **argument
) -> Any:
    """A dataclass field with what argparse needs to know: its help text and any keyword of `add_argument`.

    Without `default` the option is required. `flag` gives another name than the field's (with dashes); `group` is the
    heading under which `--help` lists it.
    """
    metadata = {"help": help, "positional": positional, "group": group, **argument}
    return dataclasses.field(default=default, metadata=metadata)


def parser(options: type, doc: str | None, prog: str) -> argparse.ArgumentParser:
    """The parser of an options dataclass; `doc` (the module's docstring) is what `--help` shows above the options."""
    result = argparse.ArgumentParser(
        prog=prog, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    hints = typing.get_type_hints(options)
    groups: dict[str, Any] = {"": result}
    for field in dataclasses.fields(options):
        argument = {"default": field.default, **field.metadata}
        group, positional = argument.pop("group"), argument.pop("positional")
        flag = argument.pop("flag", "--" + field.name.replace("_", "-"))
        argument = _reading(hints[field.name]) | argument
        if argument.get("action") == "append":  # one value each time; argparse would append to the default itself
            argument |= {"default": None, "nargs": None}
        if argument["default"] is dataclasses.MISSING:
            del argument["default"]
            argument |= {} if positional else {"required": True}
        if group not in groups:
            groups[group] = result.add_argument_group(group)
        names = [field.name] if positional else [flag]
        groups[group].add_argument(*names, **argument | ({} if positional else {"dest": field.name}))
    return result


def parse(options: type[T], doc: str | None, prog: str, argv: Sequence[str] | None = None) -> T:
    """Read `argv` (default: the command line); what argparse refuses ends the program with status 2."""
    values = vars(parser(options, doc, prog).parse_args(argv))
    for field in dataclasses.fields(options):
        if isinstance(values[field.name], list):
            values[field.name] = tuple(values[field.name])
        elif field.metadata.get("action") == "append" and values[field.name] is None:
            values[field.name] = field.default
    return options(**values)


def _reading(hint: Any) -> dict[str, Any]:
    """How argparse reads a value of this type; `X | None` is read as X."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if hint is bool:
        return {"action": "store_true"}
    if typing.get_origin(hint) is Literal:
        return {"choices": typing.get_args(hint)}
    if typing.get_origin(hint) is tuple:
        return {"nargs": "+"} | _reading(typing.get_args(hint)[0])
    return {"type": hint}
