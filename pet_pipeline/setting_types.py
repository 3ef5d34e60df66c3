"""The types that settings have, with what each allows."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


T = TypeVar("T")


def _no_duplicates(values: tuple[T, ...]) -> tuple[T, ...]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"duplicate value {value!r}")
    return values


_Distinct = (
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
    AfterValidator(_no_duplicates),
)
_Several = (*_Distinct, Field(min_length=1))


def _steps(value: object) -> object:
    if value == "auto" or (type(value) is int and value >= 0):
        return value
    raise ValueError('should be a number of updates, 0 or more, or "auto"')


Steps = Annotated[int | Literal["auto"], PlainValidator(_steps)]
Seeds = Annotated[tuple[int, ...], *_Several]
Names = Annotated[tuple[str, ...], *_Several]
NamesOrNone = Annotated[tuple[str, ...], *_Distinct]
Factors = Annotated[tuple[Annotated[float, Field(gt=0)], ...], *_Several]


class Section(BaseModel):
    """A group of settings; unknown names and wrong types are refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
