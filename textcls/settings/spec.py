"""What all settings have in common: frozen models that refuse unknown keys, and names that stay text.

In: plain values, as YAML or Python gives them. Out: checked values, or a `ValueError` that pydantic reports with its
key. Not here: the settings themselves (recipe.py), YAML (yaml_text.py).
"""

from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_serializer,
)

from textcls.errors import redacted

QUOTE_IT = "; put the name in quotes"
"""The end of a message about a value that quotes would turn into a name; recipe_file.py completes the advice."""


class UnfitError(ValueError):
    """Settings that do not fit together, with the overrides that do.

    Args:
        message: what does not fit.
        todo: what to do, in place of the general advice on recipes.
    """

    def __init__(self, message: str, *, todo: str) -> None:
        super().__init__(message)
        self.todo = todo


def _name(value: object) -> str:
    """A label, column or cell value as the CSV spells it; YAML's scalars arrive as text (yaml_text.py)."""
    if value is None:
        raise ValueError(f"a bare null, ~ or an empty value is not a name{QUOTE_IT}")
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"expected a name, not {type(value).__name__}{QUOTE_IT}")
    return str(value)


def names(value: object) -> object:
    """A list; a single name becomes a list of one."""
    return value if isinstance(value, (list, tuple)) else [value]


Name = Annotated[str, BeforeValidator(_name)]
Names = Annotated[tuple[Name, ...], BeforeValidator(names)]


def without_password(uri: str) -> str:
    """The URI itself. It is written to run.json, reports and bundles, so it must hold no credentials.

    Raises:
        ValueError: the URI holds a user or a password.
    """
    if redacted(uri) != uri:
        raise ValueError("the URI holds a user or a password; credentials come from the environment, never from a URI")
    return uri


def at_least(minimum: int) -> AfterValidator:
    """Refuses a smaller number, for settings that also accept `auto`."""

    def checked(value: Any) -> Any:
        if isinstance(value, int) and value < minimum:
            raise ValueError(f"expected 'auto' or a number of {minimum} or more")
        return value

    return AfterValidator(checked)


class Written(BaseModel):
    """A model whose content is written to files that earlier versions wrote too."""

    added_later: ClassVar[frozenset[str]] = frozenset()
    """Fields that are written only if they differ from their defaults: what needs none of them stays as it was, byte
    for byte, and with it the fingerprints of runs."""

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = write(self)
        for name in self.added_later:
            if getattr(self, name) == type(self).model_fields[name].get_default(call_default_factory=True):
                content.pop(name, None)
        return content


class Spec(Written):
    """A frozen section of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="wrap")
    @classmethod
    def _truth_is_no_number(cls, value: object, check: ValidatorFunctionWrapHandler) -> object:
        checked: object = check(value)
        if isinstance(value, bool) and not isinstance(checked, bool):
            raise ValueError(f"expected a number; YAML reads a bare yes, no, on, off, true or false as {value!r}")
        return checked
