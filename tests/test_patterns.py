"""Pattern files: what they mean, and every mistake in them by its exact message."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from pet_pipeline.errors import UserError
from pet_pipeline.keys import fingerprint
from pet_pipeline.patterns import (
    Field,
    Pattern,
    Task,
    all_patterns,
    choose_patterns,
    fill,
    load_task,
    parse_template,
    pattern_of,
    template_of,
)
from pet_pipeline.task_files import write_pattern, write_task

TASK = """columns = ["text"]
labels = ["negative", "positive"]
[verbalizer]
negative = ["bad"]
positive = ["good"]
"""
OWN = '\n[verbalizer]\nnegative = ["awful"]\n'

BAD_PATTERNS = {
    'template = "{text} fine"': "template has 0 {mask}; exactly one is needed, however long the words",
    'template = "{mask} {mask} {text}"': "template has 2 {mask}; exactly one is needed, however long the words",
    'template = "{text} {sep} {mask} {sep}"': "template has 2 {sep}; a model takes at most two segments",
    'template = "{txet} is {mask}"': "{txet} is not a column of this task; did you mean 'text'?",
    'template = "{text:strip_punkt} is {mask}"': "{text:strip_punkt}: no such spec; did you mean 'strip_punct'?",
    'template = "{text} {mask:keep}"': "{mask:keep}: {mask} takes no spec",
    'template = "{text} is {mask"': "template: expected '}' before end of string",
    'template = "{text} } {mask}"': "template: Single '}' encountered in format string",
    'template = "{text!r} {mask}"': "template: {text...}: only {name} and {name:spec,spec} are read",
    'template = "{text:{mask}}"': "template: {text...}: only {name} and {name:spec,spec} are read",
    'template = "{0.__class__} {text} {mask}"': (
        "{0.__class__} is not a column of this task; there are 'text', 'mask', 'sep', 'demos', 'soft'"
    ),
    'template = "{mask}"': "template has no text column; there are 'text'",
    'template = "{text} {soft:0} {mask}"': "{soft:0}: a number of tokens from 1 to 1000 is allowed",
    'template = "{text} {demos} {demos} {mask}"': "template has 2 {demos}; demonstrations go in one place",
    'template = "{text} {demos:keep} {mask}"': "{demos:keep}: {demos} takes no spec",
    "template = 3": "template: a string is needed; found 3",
    f'{OWN}positive = ["x"]\ntemplate = "{{mask}} {{text}}"': (
        "template must come before [verbalizer]; after it, it counts as a label"
    ),
    f'template = "{{mask}} {{text}}"{OWN}positive = ["awful"]': (
        "verbalizer: 'awful' is used for both 'negative' and 'positive'"
    ),
    f'template = "{{mask}} {{text}}"{OWN}positive = ["x", "x"]': "verbalizer: 'x' is listed twice for 'positive'",
    f'template = "{{mask}} {{text}}"{OWN}': "verbalizer: no word for label 'positive'",
    f'template = "{{mask}} {{text}}"{OWN}positive = 5': "verbalizer: 'positive' needs a list of words; found 5",
    f'template = "{{mask}} {{text}}"{OWN}positive = [" good"]': (
        "verbalizer: ' good' has spaces around it; the template says where they are"
    ),
    'template = "{mask} {text}"\nverbalizer = 3': "verbalizer: a table is needed, [verbalizer]; found 3",
    'template = "{mask} {text}"\ntemplate = "{text}"': "Cannot overwrite a value (at end of document)",
    'template = "{mask} {text}': "Unterminated string (at end of document)",
    'template = "{mask} {text} {"': "template: Single '{' encountered in format string",
    'template = "{} {text} {mask}"': "{} is not a column of this task; there are 'text', 'mask', 'sep', 'demos', 'soft'",
    'template = "{text[0]} {mask}"': "{text[0]} is not a column of this task; did you mean 'text'?",
    'template = "{Text} {mask}"': "{Text} is not a column of this task; did you mean 'text'?",
    'template = "{text:upper} {mask}"': (
        "{text:upper}: no such spec; there are 'strip_punct', 'lower_first', 'keep'"
    ),
    'template = "{text} {sep:keep} {mask}"': "{sep:keep}: {sep} takes no spec",
    'template = "{soft:1001} {text} {mask}"': "{soft:1001}: a number of tokens from 1 to 1000 is allowed",
    f'template = "{{mask}} {{text}}"{OWN}positive = ["x", 3]': (
        "verbalizer: 'positive' needs a list of words; found ['x', 3]"
    ),
    f'template = "{{mask}} {{text}}"{OWN}[verbalizer.positive]\nx = 3': (
        "verbalizer: 'positive' needs a list of words; found {'x': 3}"
    ),
    f'template = "{{mask}} {{text}}"{OWN}positive = []': "verbalizer: no word for label 'positive'",
    f'template = "{{mask}} {{text}}"{OWN}positive = ["x"]\nneutral = ["y"]': (
        "verbalizer: 'neutral' is not a label of this task; there are 'negative', 'positive'"
    ),
    'template = "{mask} {text}"\ndefault = "no"': "default: true or false is needed; found 'no'",
    'template = "{mask} {text}"\ndefalt = false': "unknown key 'defalt'; did you mean 'default'?",
    'template = "{text}"\ndefault = false': (
        "template has 0 {mask}; exactly one is needed, however long the words"
    ),
    f'template = "{{mask}} {{text}}"{OWN}positive = ["x"]\ndefault = false': (
        "default must come before [verbalizer]; after it, it counts as a label"
    ),
}
BAD_TASKS = {
    'labels = ["a", "b"]': 'columns: a list of strings is needed, such as ["a", "b"]; found None',
    'columns = 3\nlabels = ["a", "b"]': (
        'columns: a list of strings is needed, such as ["a", "b"]; found 3'
    ),
    'columns = "t"\nlabels = ["a", "b"]': (
        'columns: a list of strings is needed, such as ["a", "b"]; found \'t\''
    ),
    'columns = ["t"]\nlabels = ["a", ""]': (
        "labels: a list of strings is needed, such as [\"a\", \"b\"]; found ['a', '']"
    ),
    'columns = ["t"]\nlabels = [0, 1]': (
        'labels: a list of strings is needed, such as ["a", "b"]; found [0, 1]'
    ),
    'columns = ["t", "t"]\nlabels = ["a", "b"]': "columns: 't', 't' has a duplicate name",
    'columns = ["mask"]\nlabels = ["a", "b"]': (
        "columns: 'mask' has a meaning of its own; give the column another name"
    ),
    'columns = ["t"]\nlabels = ["a", "b"]\nmetric = 3': (
        "metric: 3 is not a metric; there are 'accuracy', 'f1', 'f1_macro', 'mcc'"
    ),
    "columns = [": "Invalid value (at end of document)",
    'columns = ["text"]': 'labels: a list of strings is needed, such as ["a", "b"]; found None',
    'columns = ["text"]\nlabels = ["a"]': "labels: 'a' is one label; a classifier needs two or more",
    'columns = ["text"]\nlabels = ["a", "a"]': "labels: 'a', 'a' has a duplicate name",
    'columns = ["label"]\nlabels = ["a", "b"]': (
        "columns: 'label' has a meaning of its own; give the column another name"
    ),
    'columns = ["t"]\nlabels = ["a", "b"]\nmetric = "acuracy"': (
        "metric: 'acuracy' is not a metric; did you mean 'accuracy'?"
    ),
    'columns = ["t"]\nlabels = ["a", "b", "c"]\nmetric = "f1"': (
        "metric: 'f1' is for two labels, here are 3; 'f1_macro' is for any number"
    ),
    'columns = ["t"]\nlabels = ["a", "b"]\nlables = []': "unknown key 'lables'; did you mean 'labels'?",
    'columns = ["t"]\nlabels = ["a", "b"]\nverbalizer = 1': (
        "verbalizer: a table is needed, [verbalizer]; found 1"
    ),
}


def task_folder(tmp_path: Path, **files: str) -> Path:
    folder = tmp_path / "reviews"
    folder.mkdir()
    for name, text in {"task": TASK, **files}.items():
        (folder / f"{name}.toml").write_text(text, "utf-8")
    return folder


@pytest.mark.parametrize("text", BAD_PATTERNS)
def test_a_bad_pattern_is_named_with_what_is_wrong(tmp_path: Path, text: str) -> None:
    folder = task_folder(tmp_path, p=text)
    with pytest.raises(UserError) as error:
        load_task(folder)
    assert str(error.value) == f"{folder / 'p.toml'}: {BAD_PATTERNS[text]}"


@pytest.mark.parametrize("text", BAD_TASKS)
def test_a_bad_task_is_named_with_what_is_wrong(tmp_path: Path, text: str) -> None:
    folder = task_folder(tmp_path, task=text)
    with pytest.raises(UserError) as error:
        load_task(folder)
    assert str(error.value) == f"{folder / 'task.toml'}: {BAD_TASKS[text]}"


def test_all_problems_of_all_files_are_shown_together(tmp_path: Path) -> None:
    folder = task_folder(
        tmp_path,
        a='template = "{text}"',
        b='tempalte = "{text} {mask}"',
        c='template = "{text} {mask}"',
    )
    with pytest.raises(UserError) as error:
        load_task(folder)
    assert str(error.value).splitlines() == [
        "3 problems:",
        f"  - {folder}/a.toml: template has 0 {{mask}}; exactly one is needed, however long the words",
        f"  - {folder}/b.toml: unknown key 'tempalte'; did you mean 'template'?",
        f'  - {folder}/b.toml: no template; write template = "... {{mask}} ..."',
    ]


def test_two_problems_of_one_file_are_both_shown(tmp_path: Path) -> None:
    folder = task_folder(
        tmp_path,
        p='template = "{txt}"\n[verbalizer]\nnegativ = ["bad"]\npositive = ["good"]',
    )
    with pytest.raises(UserError) as error:
        load_task(folder)
    assert str(error.value).splitlines() == [
        "4 problems:",
        f"  - {folder}/p.toml: template has 0 {{mask}}; exactly one is needed, however long the words",
        f"  - {folder}/p.toml: {{txt}} is not a column of this task; did you mean 'text'?",
        f"  - {folder}/p.toml: verbalizer: 'negativ' is not a label of this task; did you mean 'negative'?",
        f"  - {folder}/p.toml: verbalizer: no word for label 'negative'",
    ]


@pytest.mark.parametrize("name", ["task", "p"])
def test_files_are_utf8(tmp_path: Path, name: str) -> None:
    folder = task_folder(tmp_path, p='template = "{text} {mask}"')
    file = folder / f"{name}.toml"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())  # as some editors write it
    assert len(load_task(folder).patterns) == 1
    file.write_bytes("# é\n".encode("latin-1"))
    with pytest.raises(UserError) as error:
        load_task(folder)
    assert str(error.value) == f"{file}: not UTF-8 text (invalid continuation byte)"


def test_a_folder_without_patterns(tmp_path: Path) -> None:
    folder = task_folder(tmp_path)
    with pytest.raises(UserError, match="no pattern; add a file with template = "):
        load_task(folder)


def test_no_such_task_names_the_nearest(tmp_path: Path) -> None:
    task_folder(tmp_path, p='template = "{text} {mask}"')
    with pytest.raises(
        UserError, match=r"reviws/task.toml: no such task; did you mean 'reviews'\?"
    ):
        load_task(tmp_path / "reviws")


def test_a_task_is_named_by_its_folder(tmp_path: Path) -> None:
    folder = task_folder(tmp_path, p='template = "{text} {mask}"')
    with pytest.raises(UserError) as error:
        load_task(folder / "task.toml")
    message = "no such task; a task is a folder with a task.toml"
    assert str(error.value) == f"{folder}/task.toml/task.toml: {message}"


def test_what_a_task_says(tmp_path: Path) -> None:
    folder = task_folder(
        tmp_path,
        task='columns = ["a", "b"]\nlabels = ["yes", "no"]\nmetric = "f1"\n'
        '[verbalizer]\nyes = "Yes"\nno = ["No", "Never"]',
        b='template = "{a}{mask}"',
        a='template = "{a:keep, strip_punct} {{}} {mask} {sep} {b}"',
    )
    words, labels = (("Yes",), ("No", "Never")), ("yes", "no")
    kept = Field("a", ("keep", "strip_punct"))
    parts = (kept, " {", "}", " ", Field("mask"), " ", Field("sep"), " ", Field("b"))
    assert load_task(folder) == Task(
        "reviews",
        ("a", "b"),
        labels,
        "f1",
        (
            Pattern("a", parts, labels, words),
            Pattern("b", (Field("a"), Field("mask")), labels, words),
        ),
    )


def test_a_pattern_file_replaces_the_verbalizer(tmp_path: Path) -> None:
    folder = task_folder(
        tmp_path,
        a='template = "{text} {mask}"',
        b=f'template = "{{text}} {{mask}}"{OWN}positive = ["great", "fine"]',
    )
    a, b = load_task(folder).patterns
    assert a.words == (("bad",), ("good",))
    assert b.words == (("awful",), ("great", "fine"))


def test_rendering_shows_what_a_model_reads(tmp_path: Path) -> None:
    folder = task_folder(
        tmp_path, p='template = "{{{text:strip_punct,lower_first}}}? {sep} {mask}, no"'
    )
    (pattern,) = load_task(folder).patterns
    assert pattern.render({"text": " It rains!. "}) == "{it rains}? {sep} {mask}, no"


@pytest.mark.parametrize(
    ("specs", "text", "filled"),
    [
        ((), " Why, so? ", "Why, so?"),
        (("strip_punct",), "Why, so?! ", "Why, so"),
        (("strip_punct",), "?!", ""),
        (("lower_first",), "WHY so?", "wHY so?"),
        (("lower_first",), "", ""),
        (("keep",), " Why?", "Why?"),
        (("lower_first", "strip_punct"), "(Why)", "(Why)"),
        (("strip_punct",), "It rains. ", "It rains"),
        (("strip_punct",), "It rains ? !", "It rains"),
        (("strip_punct",), "It rains\u2026", "It rains"),
        (("strip_punct",), "I like C++", "I like C++"),
        (("strip_punct",), "I like C#.", "I like C#"),
        (("strip_punct",), "up by 100%!", "up by 100%"),
        (("strip_punct",), "It cost 5 $ * & @ /", "It cost 5 $ * & @ /"),
        (("strip_punct",), 'He said "no".', 'He said "no"'),
        (("strip_punct",), "下雨了。", "下雨了"),
        (("strip_punct",), "下雨了吗？！", "下雨了吗"),
        (("strip_punct",), "雨、", "雨"),
        (("strip_punct",), "هل تمطر؟", "هل تمطر"),
        (("strip_punct",), "بارش ہے۔", "بارش ہے"),
        (("strip_punct",), "बारिश हो रही है।", "बारिश हो रही है"),
    ],
)
def test_columns_are_filled_in_by_their_specs(
    specs: tuple[str, ...], text: str, filled: str
) -> None:
    assert fill(Field("text", specs), {"text": text}) == filled


NEVER_STRIPPED = "+%#$*&@/\\\"'()[]<>=-_~^|`a1é雨"
STRIPPED = ".!?,;:…。！？、，；：؟،؛۔।॥"


@given(st.text(st.sampled_from(NEVER_STRIPPED + STRIPPED + " \n\u3000"), max_size=20) | st.text())
def test_strip_punct_cuts_only_the_end_of_a_sentence(text: str) -> None:
    stripped = fill(Field("x", ("strip_punct",)), {"x": text})
    assert fill(Field("x", ("strip_punct",)), {"x": stripped}) == stripped
    assert text.strip().startswith(stripped)
    cut = text.strip()[len(stripped) :]
    assert not set(cut) & set(NEVER_STRIPPED)
    assert not any(character.isalnum() for character in cut)
    assert not stripped.endswith((*STRIPPED, " ", "\n"))
    assert stripped or not set(text) & set(NEVER_STRIPPED)


@given(st.text(st.sampled_from("{}:!., maskextp1"), max_size=30))
def test_any_template_parses_or_is_a_value_error(template: str) -> None:
    try:
        parts = parse_template(template)
    except ValueError:
        return
    assert all(isinstance(part, str | Field) for part in parts)


@given(st.text(max_size=30))
def test_doubled_braces_are_literal(text: str) -> None:
    doubled = text.replace("{", "{{").replace("}", "}}")
    assert "".join(part for part in parse_template(doubled) if isinstance(part, str)) == text


@given(st.lists(st.text(max_size=9) | st.just(Field("x")) | st.just(Field("y", ("keep",)))))
def test_a_template_is_that_of_its_pattern(parts: list[str | Field]) -> None:
    pattern = Pattern("p", tuple(parts), ("a", "b"), (("no",), ("yes",)))
    again = pattern_of("p", template_of(pattern), pattern.labels, pattern.words)
    row = {"x": "X.", "y": "Y"}
    assert again.render(row) == pattern.render(row)
    assert template_of(again) == template_of(pattern)


def test_a_written_task_is_read_as_it_was(tmp_path: Path) -> None:
    words = (("bad", "so-so"), ('"good"',))
    pattern = pattern_of("it_was", '{x:keep} {{1}} "{mask}" é', ("sad", "it's"), words)
    write_task(tmp_path, ["x"], pattern.labels, "mcc", words)
    write_pattern(tmp_path / "it_was.toml", "written", template_of(pattern), pattern.labels, words)
    assert (tmp_path / "it_was.toml").read_text("utf-8").startswith("# written\n")
    task = load_task(tmp_path)
    assert (task.columns, task.labels, task.metric) == (("x",), pattern.labels, "mcc")
    assert [p.render({"x": "t"}) for p in task.patterns] == [pattern.render({"x": "t"})]
    assert task.patterns[0].words == words


def names(patterns: tuple[Pattern, ...]) -> list[str]:
    return [pattern.name for pattern in patterns]


def test_patterns_that_are_not_default_are_taken_by_name(tmp_path: Path) -> None:
    folder = task_folder(
        tmp_path,
        a='template = "{text} {mask}"\ndefault = true',
        b='template = "{mask} {text}"\ndefault = false',
        c='template = "{mask}: {text}"',
    )
    task = load_task(folder)
    assert (names(task.patterns), names(task.others)) == (["a", "c"], ["b"])
    assert names(all_patterns(task)) == ["a", "b", "c"]
    assert names(choose_patterns(task, ()).patterns) == ["a", "c"]
    assert names(choose_patterns(task, ("c", "b")).patterns) == ["b", "c"]


def test_whether_a_pattern_is_default_does_not_count_in_keys(tmp_path: Path) -> None:
    folder = task_folder(tmp_path, p='template = "{text} {mask}"')
    before = choose_patterns(load_task(folder), ())
    (folder / "q.toml").write_text('template = "{mask} {text}"\ndefault = false')
    after = choose_patterns(load_task(folder), ())
    assert fingerprint(after.patterns) == fingerprint(before.patterns)
    (folder / "p.toml").write_text('template = "{text} {mask}"\ndefault = false')
    chosen = choose_patterns(load_task(folder), ("p",))
    assert fingerprint(chosen.patterns) == fingerprint(before.patterns)


def test_a_task_without_a_default_pattern_needs_a_choice(tmp_path: Path) -> None:
    folder = task_folder(tmp_path, p='template = "{text} {mask}"\ndefault = false')
    task = load_task(folder)
    assert names(choose_patterns(task, ("p",)).patterns) == ["p"]
    with pytest.raises(UserError) as error:
        choose_patterns(task, ())
    assert str(error.value) == (
        "patterns: not set, and every pattern of the task reviews has default = false; choose "
        "from 'p'"
    )


def test_unknown_names_are_all_shown_with_the_nearest(tmp_path: Path) -> None:
    folder = task_folder(
        tmp_path,
        it_was='template = "{text} It was {mask}."',
        null_end='template = "{text} {mask}"\ndefault = false',
    )
    with pytest.raises(UserError) as error:
        choose_patterns(load_task(folder), ("nul_end", "it_was", "x"))
    assert error.value.problems == (
        "patterns: 'nul_end' is not a pattern of the task reviews; did you mean 'null_end'?",
        "patterns: 'x' is not a pattern of the task reviews; there are 'it_was', 'null_end'",
    )


@given(st.dictionaries(st.text("ab-_9.", min_size=1, max_size=4), st.booleans()), st.data())
def test_a_choice_is_in_the_order_of_the_files(
    default: dict[str, bool], data: st.DataObject
) -> None:
    files = sorted(Path(f"{name}.toml") for name in default)
    patterns = [pattern_of(file.stem, "{x} {mask}", ("a", "b"), (("c",), ("d",))) for file in files]
    task = Task(
        "t",
        ("x",),
        ("a", "b"),
        "accuracy",
        tuple(pattern for pattern in patterns if default[pattern.name]),
        tuple(pattern for pattern in patterns if not default[pattern.name]),
    )
    assert all_patterns(task) == tuple(patterns)
    chosen = data.draw(st.permutations([*default]).map(lambda order: order[: len(order) // 2]))
    if chosen:
        found = choose_patterns(task, chosen)
        assert found.patterns == tuple(p for p in patterns if p.name in chosen)
        assert found.others == tuple(p for p in patterns if p.name not in chosen)


@given(st.booleans() | st.integers() | st.text("a \"'") | st.lists(st.booleans()) | st.floats(0, 1))
def test_default_is_true_or_false_or_an_error(value: object) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = task_folder(
            Path(made), p=tomlkit.dumps({"template": "{text} {mask}", "default": value})
        )
        if isinstance(value, bool):
            assert bool(load_task(folder).patterns) == value
        else:
            with pytest.raises(
                UserError, match=r"p\.toml: default: true or false is needed; found"
            ):
                load_task(folder)
