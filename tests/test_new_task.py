"""The files of a new task: what is in them, and that they are read as they were meant."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from testing import wordpiece_tokenizer

from pet_pipeline.drafts import draft_task
from pet_pipeline.errors import UserError
from pet_pipeline.labelled import column_problems
from pet_pipeline.new_task import new_task, save_task, task_of, weak_words_note
from pet_pipeline.patterns import load_task, template_of

NEWS = ["Business", "Sci/Tech", "Sports", "World"]
TASK = """\
# What is the text about? (Write here which question the labels answer.)
# Made from news.csv. Every other .toml file in this folder is a pattern. Edit, add and remove them:
# a run does again only what depends on a change.
columns = ["text"]
labels  = ["Business", "Sci/Tech", "Sports", "World"]
metric  = "accuracy"  # or f1_macro, where rare labels count as much as frequent ones

# What may stand at {mask}. So far these are the labels' names. Better words make a better
# classifier: for each label one to three common words that read well in all patterns. A pattern may
# have its own, in a [verbalizer] after its template.
# The model's tokenizer splits some of them, as noted; a word of one token may do better.
[verbalizer]
Business   = ["Business"]
"Sci/Tech" = ["Sci", "Tech"]  # 3 and 1 tokens
Sports     = ["Sports"]
World      = ["World"]

# If the labels say how something is rather than what a text is about, try templates such as
#     template = "{text} It was {mask}."
#     template = "{text} All in all, it was {mask}."
"""
QUESTION = """\
# A question about the text; ask what you would ask a person who labels it
template = "{text} {sep} Question: What is this about? Answer: {mask}."
"""
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
labels_like = st.one_of(texts, st.text("aB1_/&'\"\\#[]= ", min_size=1, max_size=8))


def test_the_files_are_as_good_as_written_by_hand() -> None:
    files = new_task(NEWS, ["text"], tokenizer=wordpiece_tokenizer(), source="news.csv")
    assert [*files] == [
        "task.toml",
        "category.toml",
        "colon.toml",
        "brackets.toml",
        "question.toml",
    ]
    assert files["task.toml"] == TASK
    assert files["question.toml"] == QUESTION


def test_without_a_tokenizer_only_the_notes_on_tokens_are_left_out() -> None:
    with_notes = new_task(NEWS, ["text"], tokenizer=wordpiece_tokenizer())
    without = new_task(NEWS, ["text"])
    assert "token" not in without["task.toml"]
    assert task_of(with_notes, "news") == task_of(without, "news")


def test_two_texts_stand_in_every_template() -> None:
    task = task_of(new_task(["yes", "no"], ["question", "passage"]), "pairs")
    assert {template_of(pattern) for pattern in task.patterns} == {
        '"{question:strip_punct}"? {sep} {mask}, "{passage}"',
        "{question:strip_punct}? {sep} {mask}, {passage}",
        "{question:strip_punct}? {mask}, {passage:lower_first}",
        "{question} {sep} Question: {passage:strip_punct}? Answer: {mask}.",
    }
    assert task.patterns[0].words == (("Yes",), ("No",))


def test_words_and_templates_may_be_given() -> None:
    files = new_task(
        ["spam", "0"],
        ["text"],
        metric="f1",
        words={"spam": "advertising", "0": ["useful", "friendly"]},
        templates=["{text} ({mask})", 'Mail "{mask}": {text}'],
    )
    task = task_of(files, "mail")
    assert [*files] == ["task.toml", "pattern_1.toml", "pattern_2.toml"]
    assert (task.name, task.labels, task.metric) == ("mail", ("spam", "0"), "f1")
    assert [template_of(p) for p in task.patterns] == ["{text} ({mask})", 'Mail "{mask}": {text}']
    assert task.patterns[1].words == (("advertising",), ("useful", "friendly"))
    assert "Better words" not in files["task.toml"]
    assert "do not say" not in files["task.toml"]


def test_labels_that_say_nothing_are_noted() -> None:
    note = "'0', '1' do not say what is meant"
    assert note in new_task(["0", "1"], ["text"])["task.toml"]
    assert weak_words_note(["0", "1"], ["text"], "t/task.toml") == (
        "'0', '1' do not say what is meant; write better label words into t/task.toml"
    )
    assert weak_words_note(["spam", "1"], ["text"], "t").startswith("'1' does not say")
    assert "'5' and 3 more do" in weak_words_note([*"012345678"], ["text"], "t")
    assert weak_words_note(["spam", "ham"], ["text"], "t") == ""


def test_many_labels_stand_in_lines_of_their_own() -> None:
    labels = [f"kind of message {n}" for n in range(20)]
    text = new_task(labels, ["text"])["task.toml"]
    assert 'labels  = [\n    "kind of message 0",\n' in text
    assert tomllib.loads(text)["labels"] == labels
    assert max(map(len, text.splitlines())) <= 100


def test_a_column_that_no_template_can_name_is_an_error() -> None:
    with pytest.raises(UserError) as error:
        new_task(["a b", "c d"], ["label", "a:b"])
    assert error.value.problems == (
        "columns: 'label' has a meaning of its own in patterns; "
        'add --text-column label (data.columns = {text = "label"})',
        "columns: 'a:b' cannot stand in a pattern; "
        'add --text-column a:b (data.columns = {text = "a:b"})',
    )


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{text} no gap", "template has 0 {mask}; exactly one is needed, however long the words"),
        ("{text {mask}", "template: unexpected '{' in field name"),
        ("{txt} {mask}", "{txt} is not a column of this task; did you mean 'text'?"),
    ],
)
def test_a_template_with_a_mistake_is_named_by_its_file(template: str, problem: str) -> None:
    files = new_task(
        ["a b", "c d"],
        ["text"],
        templates=["{text} {mask}", template],
        tokenizer=wordpiece_tokenizer(),
    )
    with pytest.raises(UserError) as error:
        task_of(files, "x")
    assert problem in str(error.value)
    assert str(error.value).startswith("pattern_2.toml: ")
    new_task(["a b", "c d"], ["text"], templates=[template], tokenizer=wordpiece_tokenizer())


@settings(max_examples=50)
@given(
    st.lists(labels_like, min_size=2, max_size=4, unique=True),
    st.lists(texts, min_size=1, max_size=3, unique=True),
    texts,
)
def test_what_is_written_is_what_is_read(
    labels: list[str], columns: list[str], source: str
) -> None:
    assume(not [*column_problems(columns)])
    try:
        files = new_task(labels, columns, source=source)
    except UserError:
        assume(False)
    task = task_of(files, "x")
    draft = draft_task(labels, columns)
    assert (task.labels, task.columns) == (tuple(labels), tuple(columns))
    assert len(task.patterns) == 4
    for pattern in task.patterns:
        assert pattern.words == tuple(draft.words[label] for label in labels)
        used = {part.name for part in pattern.parts if not isinstance(part, str)}
        assert used >= {*columns, "mask"}


def test_a_task_is_saved_all_or_nothing(tmp_path: Path) -> None:
    files = new_task(NEWS, ["text"])
    save_task(tmp_path / "patterns" / "news", files)
    assert load_task(tmp_path / "patterns" / "news") == task_of(files, "news")
    with pytest.raises(UserError, match=r"^task.toml: unknown key 'x'"):
        save_task(tmp_path / "bad", {**files, "task.toml": "x = 1\n" + files["task.toml"]})
    assert [path.name for path in tmp_path.iterdir()] == ["patterns"]
    (tmp_path / "empty").mkdir()
    save_task(tmp_path / "empty", files)
    assert len([*(tmp_path / "empty").iterdir()]) == 5


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, what in (("mine", "a folder with files in it"), ("file", "a file")):
        with pytest.raises(UserError) as error:
            save_task(tmp_path / name, new_task(NEWS, ["text"]))
        assert str(error.value) == (
            f"{tmp_path / name}: there is {what}, which is left as it is; name another folder"
        )
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    with pytest.raises(UserError, match=r"file/below: Not a directory; name another folder"):
        save_task(tmp_path / "file" / "below", new_task(NEWS, ["text"]))
