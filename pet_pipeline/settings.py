"""Read settings from TOML, override them, check them, and write them with comments."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import BaseModel, ValidationError

from pet_pipeline.config import RENAMED, Settings
from pet_pipeline.errors import UserError, nearest, raise_all
from pet_pipeline.setting_types import Section

NO_TASK = (
    "task: not set, and no labelled texts to make one from; name the folder of a task, "
    "--task FOLDER, which zero-shot runs need, or give --labelled FILE"
)


def read_settings(
    file: Path | None = None,
    overrides: Sequence[str] = (),
    over: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings of a TOML file, with nested values and `section.key=value` overrides on top.

    Raises `UserError` with all unknown names and wrong values at once.
    """
    raw: dict[str, Any] = {}
    if file is not None:
        _merge(raw, _read(file))
    _merge(raw, over or {})
    problems = []
    for text in overrides:
        try:
            _override(raw, text)
        except ValueError as error:
            problems.append(str(error))
    raise_all(problems)
    return check_settings(raw, place=str(file) if file else "settings")


def check_settings(raw: Mapping[str, Any], *, place: str = "settings") -> Settings:
    """Settings of nested plain values; raises `UserError` with every problem."""
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        raise_all(f"{place}: {problem}" for e in error.errors() for problem in _problems(dict(e)))
        raise


def write_settings(settings: Settings) -> str:
    """Settings as TOML: every one, with a line that explains it."""
    document = tomlkit.document()
    for name, value in _simple(settings):
        _add(document, settings, name, value)
    for name in type(settings).model_fields:
        section = getattr(settings, name)
        if isinstance(section, Section):
            table = tomlkit.table()
            table.add(tomlkit.comment((type(section).__doc__ or "").strip()))
            for key, value in _simple(section):
                _add(table, section, key, value)
            document.add(tomlkit.nl())
            document.add(name, table)
    return tomlkit.dumps(document)


def run_folder(settings: Settings) -> Path:
    """The folder of the run: the one that is set, or one in `runs`.

    That is named like the task's folder, or the labelled table that a task is made from. Raises
    `UserError` if there is neither.

    >>> run_folder(Settings(task="patterns/mood")).as_posix()
    'runs/mood'
    """
    if settings.output:
        return Path(settings.output)
    if settings.task:
        return Path("runs", Path(settings.task).resolve().name)
    if settings.data.labelled:
        return Path("runs", table_name(settings.data.labelled))
    raise UserError(NO_TASK)


def table_name(source: str) -> str:
    """A table's name: of a file or folder without the suffix, of a data set without its owner.

    >>> table_name("data/mood.csv"), table_name("datasets:me/mood:train")
    ('mood', 'mood')
    """
    if source.startswith("datasets:"):
        source = source.split(":")[1]
    return Path(source.rstrip("/")).stem or "table"


def _simple(section: Section) -> Iterator[tuple[str, Any]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if not isinstance(value, Section):
            yield name, value


def _add(container: Any, section: Section, name: str, value: Any) -> None:
    if isinstance(value, dict):
        inline = tomlkit.inline_table()
        inline.update(value)
        item: Any = inline
    else:
        item = tomlkit.item(list(value) if isinstance(value, tuple) else value)
    item.comment(type(section).model_fields[name].description or "")
    container.add(name, item)


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8-sig"))  # some editors put a mark first
    except (FileNotFoundError, NotADirectoryError):
        near = sorted(str(p) for p in file.parent.glob("*.toml"))
        raise UserError(f"{file}: no such settings file{nearest(str(file), near)}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: {error}") from None
    except IsADirectoryError:
        raise UserError(f"{file}: a folder; a settings file is needed, such as my.toml") from None


def _override(raw: dict[str, Any], text: str) -> None:
    """Put one `section.key=value` into nested values; the value is TOML, or else a string."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"--set {text}: no '='; write section.key=value")
    try:
        parsed: Any = tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        parsed = value
    *sections, key = name.strip().split(".")
    for section in sections:
        inner = raw.get(section)
        raw[section] = dict(inner) if isinstance(inner, Mapping) else {}
        raw = raw[section]
    _merge(raw, {key: parsed})


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if key == "columns" or not (isinstance(value, Mapping) and isinstance(into.get(key), dict)):
            into[key] = dict(value) if isinstance(value, Mapping) else value
        else:
            _merge(into[key], value)


def _problems(error: dict[str, Any]) -> Iterator[str]:
    *sections, name = [str(part) for part in error["loc"]]
    place = ".".join([*sections, name])
    if error["type"] == "extra_forbidden" and place in RENAMED:
        for old in _former_names(place, error["input"]):
            yield f"{old}: this setting has a new name; write {RENAMED[old]}"
    elif error["type"] == "extra_forbidden":
        yield f"{place}: no such setting{nearest(name, _names(sections))}"
    elif error["type"] in ("model_type", "model_attributes_type"):
        yield f"{place}: a section is needed, [{place}]; found {error['input']!r}"
    elif error["type"] == "tuple_type":
        yield f"{place}: a list is needed, [...]; found {error['input']!r}"
    else:
        yield f"{place}: {_lower(error['msg'])}; found {error['input']!r}"


def _former_names(place: str, value: object) -> list[str]:
    """The former names of the settings in a section, or that of the section or setting itself."""
    inner = [f"{place}.{name}" for name in value] if isinstance(value, Mapping) else []
    return [name for name in inner if name in RENAMED] or [place]


def _names(sections: list[str]) -> list[str]:
    model: type[BaseModel] = Settings
    for section in sections:
        annotation = model.model_fields[section].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return list(model.model_fields)


def _lower(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
