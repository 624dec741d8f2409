"""Reads a recipe: YAML, and `--set section.key=value`.

In: YAML text, or the name of a recipe file. Out: a checked `Recipe`, or an error with the key at fault and the nearest
valid key. Not here: the settings themselves (recipe.py).
"""

import copy
import difflib
import json
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from textcls.command_line import command
from textcls.errors import InputError, RecipeError
from textcls.settings.recipe import Recipe
from textcls.settings.spec import QUOTE_IT, Spec, UnfitError
from textcls.settings.yaml_text import RepeatedKeyError, escaped, read_value, read_yaml, set_option

AnySpec = TypeVar("AnySpec", bound=Spec)

# Characters; a longer value is not repeated in a message.
_LONG_VALUE = 200


def recipe_text(name: str) -> str:
    """The text of the recipe file `name`, or of the included recipe of that name.

    Raises:
        InputError: neither exists, or the file cannot be read.
    """
    path, included = Path(name), included_recipes()
    if name in included and not path.is_file():
        path = included[name]
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--recipe {name}: {error}",
            expected=f"a YAML file, or the name of an included recipe: {', '.join(included)}",
        ) from None


def included_recipes() -> dict[str, Path]:
    """Name -> file of each recipe that is part of textcls."""
    package = Path(__file__).parents[1]
    # pyproject.toml installs the recipes inside the package; in a checkout they are in jobs/.
    folder = package / "recipes" if (package / "recipes").is_dir() else package.parent / "jobs" / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def parse_recipe(text: str, overrides: Sequence[str] = (), *, source: str = "recipe") -> Recipe:
    """A checked recipe.

    Args:
        text: YAML, a mapping of sections.
        overrides: `section.key=value` each, applied in order. A value is a literal name, or YAML in quotes, brackets or
            braces; it replaces the earlier value. A pattern of `text.mask_patterns.NAME` is YAML in quotes alone.
        source: names the recipe in messages.

    Raises:
        RecipeError: invalid YAML, an unknown key (with the nearest valid one), an invalid value or combination.
    """
    try:
        content = read_yaml(text) or {}
    except ValueError as error:
        todo = _once(error) if isinstance(error, RepeatedKeyError) else "check quotes, colons and indentation there"
        raise RecipeError(f"{source} cannot be read: {error}", todo=todo) from None
    if not isinstance(content, dict):
        raise RecipeError(
            f"{source} holds a {type(content).__name__}", expected="a mapping of sections, such as data: ..."
        )
    return resolve(Recipe, content, overrides, source=source)


def resolve(spec: type[AnySpec], content: dict[str, Any], overrides: Sequence[str], *, source: str) -> AnySpec:
    """Checked settings of the class `spec`; the second half of `parse_recipe`, with the same errors.

    Args:
        spec: the class of the settings.
        content: section -> key -> value; the overrides are written into it.
        overrides: `section.key=value` each.
        source: names the settings in messages.
    """
    for override in overrides:
        _apply(spec, content, override)
    try:
        return spec.model_validate(content)
    except ValidationError as error:
        quoted = _in_quotes(error, spec, content, overrides)
        todo = _todo_of(error) or f"{command('train')} --help-recipe lists every key"
        if quoted:
            advised = " ".join(dict.fromkeys(quoted.values()))
            todo = f"if it is a name, put it in double quotes, and the whole override in single ones: {advised}"
        raise RecipeError(f"{source}: {_explain(error, spec, quoted)}", todo=todo) from None


def _todo_of(error: ValidationError) -> str:
    """The advice of the first problem that has some of its own."""
    causes = (problem.get("ctx", {}).get("error") for problem in error.errors(include_url=False))
    return next((cause.todo for cause in causes if isinstance(cause, UnfitError)), "")


def _once(error: RepeatedKeyError) -> str:
    return f"name '{escaped(error.key)}' once"


def _parts(override: str) -> tuple[list[str], str]:
    """(the keys, the value as it was typed) of a `--set`."""
    path, _, value = override.partition("=")
    return path.strip().split("."), value


def _apply(spec: type[Spec], content: dict[str, Any], override: str) -> None:
    equals = "=" in override
    keys, value = _parts(override)
    if not equals or len(keys) < 2 or not all(keys):
        raise RecipeError(f"--set {override!r}", expected="section.key=value, such as --set train.epochs=2")
    try:
        parsed = _value(keys, value)
    except ValueError as error:
        todo = _once(error) if isinstance(error, RepeatedKeyError) else _readable(spec, content, keys, value.strip())
        if _is_pattern(keys):
            todo = (
                'leave out the quotes: after its name a pattern needs none, and may begin with ["] in place of a quote'
            )
        raise RecipeError(
            f"--set {override[:_LONG_VALUE]!r}: the value is not valid YAML: {error}", todo=todo
        ) from None
    _put(content, keys, parsed, override)


def _is_pattern(keys: Sequence[str]) -> bool:
    return list(keys[:-1]) == ["text", "mask_patterns"]


def _value(keys: Sequence[str], value: str) -> Any:
    """The value of a `--set`; a pattern is taken as it is, unless it is in quotes."""
    stripped = value.strip(" \t\r\n")
    return stripped if _is_pattern(keys) and stripped and stripped[0] not in "'\"" else read_value(value)


def _put(content: dict[str, Any], keys: Sequence[str], value: Any, override: str) -> None:
    section = content
    for depth, key in enumerate(keys[:-1], 1):
        inner = section.get(key)
        if inner is None:
            inner = section[key] = {}
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {override!r}: {'.'.join(keys[:depth])} is a value, not a section")
        section = inner
    section[keys[-1]] = value


def _takes(spec: type[Spec], content: dict[str, Any], keys: Sequence[str], value: Any) -> bool:
    """Whether a setting accepts a value; errors of other settings are ignored."""
    changed = copy.deepcopy(content)
    try:
        _put(changed, keys, value, "")
        spec.model_validate(changed)
    except RecipeError:
        return False
    except ValidationError as error:
        return all(list(problem["loc"][: len(keys)]) != list(keys) for problem in error.errors(include_url=False))
    return True


def _several(spec: type[Spec], content: dict[str, Any], keys: Sequence[str]) -> dict[str, str] | list[str] | None:
    """An example of the mapping or list of names that a setting accepts; None if it accepts neither."""
    examples: tuple[dict[str, str], list[str]] = ({"a": "b"}, ["a", "b"])
    return next((example for example in examples if _takes(spec, content, keys, example)), None)


def _readable(spec: type[Spec], content: dict[str, Any], keys: Sequence[str], value: str) -> str:
    """The advice for a `--set` whose value is not valid YAML."""
    key = ".".join(keys)
    if value[:1] in ("{", "[") and (example := _several(spec, content, keys)):
        blank = ", a space after each colon" if isinstance(example, dict) else ""
        return f"put names in double quotes{blank}, and close each bracket, such as {set_option(key, example)}"
    if len(value) < _LONG_VALUE and _takes(spec, content, keys, value):
        return f"put names in double quotes; for a single name: {set_option(key, value)}"
    return "put names in double quotes"


def _in_quotes(
    error: ValidationError, spec: type[Spec], content: dict[str, Any], overrides: Sequence[str]
) -> dict[tuple[int | str, ...], str]:
    """Location of a problem -> the `--set` with the name in quotes, for values that were given by a `--set`.

    The override is quoted so that a shell passes it on unchanged.
    """
    advised = {}
    for problem in error.errors(include_url=False):
        if not problem["msg"].endswith(QUOTE_IT):
            continue
        for keys, value in map(_parts, reversed(overrides)):
            if list(problem["loc"][: len(keys)]) != keys:
                continue
            parsed, typed = _value(keys, value), value.strip()
            if typed[:1] in ("{", "[") and _several(spec, content, keys):
                word = re.search(r"\b(null|Null|NULL)\b|~", typed)
                named = _with_word(parsed, word[0]) if word else None
            else:
                named = typed
            if named and len(typed) < _LONG_VALUE and _takes(spec, content, keys, named):
                advised[problem["loc"]] = set_option(".".join(keys), named)
            break
    return advised


def _with_word(value: Any, word: str) -> Any:
    """The value with `word` in place of every None."""
    if isinstance(value, dict):
        return {_with_word(key, word): _with_word(item, word) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_word(item, word) for item in value]
    return word if value is None else value


def _explain(error: ValidationError, spec: type[Spec], quoted: Collection[tuple[int | str, ...]] = ()) -> str:
    """All problems of the settings, one a line, each with its dotted key; the advice covers the locations in
    `quoted`."""
    lines = []
    for problem in error.errors(include_url=False):
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(where, list(keys_of(spec)), n=1, cutoff=0.5)
            lines.append(f"there is no key {where}" + (f"; did you mean {near[0]}?" if near else ""))
        else:
            found = "" if isinstance(problem["input"], dict) else f" (found {problem['input']!r})"
            message = problem["msg"].removeprefix("Value error, ")
            message = message.removesuffix(QUOTE_IT) if problem["loc"] in quoted else message
            lines.append(f"{where or 'recipe'}: {message}{found}")
    return "\n  ".join(dict.fromkeys(lines))


def keys_of(spec: type[Spec], prefix: str = "") -> Iterator[str]:
    """Every dotted key of the settings, in order, sections included."""
    for name, field in spec.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, Spec):
            yield from keys_of(field.annotation, f"{prefix}{name}.")


def describe_keys() -> Iterator[tuple[str, str, str]]:
    """(dotted key, default as YAML, documentation) of every recipe key, in order."""
    for section, section_field in Recipe.model_fields.items():
        spec = section_field.annotation
        assert isinstance(spec, type)
        assert issubclass(spec, Spec)
        for name, field in spec.model_fields.items():
            default = json.dumps(field.get_default(call_default_factory=True), default=list)
            yield f"{section}.{name}", default, " ".join((field.description or "").split())
