"""Rows in patterns come out as in running text, fit, and keep what must be kept."""

from __future__ import annotations

import json
import re

import pytest
from conftest import TOKENIZERS, WORDS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from pet_pipeline.encoding import (
    PatternEncoder,
    check_encoders,
    collate,
    describe_words,
    layout_of,
    read_encoded,
    write_encoded,
)
from pet_pipeline.errors import UserError
from pet_pipeline.patterns import Pattern, parse_template

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
BUILT = {kind: make() for kind, make in TOKENIZERS.items()}
WILD = st.text(st.sampled_from('ab [MASK]<mask></s>SEPé\u4e2d😀.,\n"'), max_size=60)
PLAIN = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)
TEMPLATES = [
    "{text} it was {mask}.",
    "{mask}: {text}",
    "{text} ({mask})",
    '"{text}" {mask}, "{more:keep}"',
    "just {mask}! {sep} {text} and {more}",
    "{text} {sep} {more:keep}? answer: {mask}",
    "[ category: {mask} ] {text} {more}",
]


def pattern(template: str, words: tuple[tuple[str, ...], ...] = (("bad",), ("great",))) -> Pattern:
    return Pattern("p", parse_template(template), tuple("ab"[: len(words)]), words)


def encoder(
    kind: str,
    template: str,
    max_tokens: int = 400,
    words: tuple[tuple[str, ...], ...] = (("bad",), ("great",)),
) -> PatternEncoder:
    return PatternEncoder(pattern(template, words), BUILT[kind], max_tokens)


@QUICK
@given(st.sampled_from(list(BUILT)), st.sampled_from(TEMPLATES), WILD, PLAIN, st.integers(36, 60))
def test_rows_fit_and_keep_their_slot(
    kind: str, template: str, text: str, more: str, max_tokens: int
) -> None:
    pvp = encoder(kind, template, max_tokens, (("bad",), ("come back",)))
    (row,) = pvp.encode([{"text": text, "more": more}])
    assert len(row.ids) <= max_tokens
    masks = [n for n, token in enumerate(row.ids) if token == pvp.layout.mask]
    assert masks == list(range(row.slot, row.slot + pvp.words.n_masks))
    special = {*pvp.layout.prefix, *pvp.layout.middle, *pvp.layout.suffix}
    count = len(pvp.layout.prefix) + len(pvp.layout.suffix)
    count += len(pvp.layout.middle) if row.boundary < len(row.ids) else 0
    assert sum(token in special for token in row.ids) == count


@QUICK
@given(st.sampled_from(list(BUILT)), PLAIN, PLAIN)
def test_an_untruncated_row_is_the_text_a_person_would_write(
    kind: str, text: str, more: str
) -> None:
    tokenizer = BUILT[kind]
    row = {"text": text, "more": more}
    for template in (*TEMPLATES, "{text} and {mask}", "the {mask} of {text}", "{text}{mask}"):
        pvp = encoder(kind, template)
        (found,) = pvp.encode([row])
        rendered = pvp.pattern.render(row).replace("{mask}", tokenizer.mask_token)
        written = tokenizer(*(segment.strip() for segment in rendered.split("{sep}")))
        assert list(found.ids) == written["input_ids"]


@QUICK
@given(st.sampled_from(list(BUILT)), WILD)
def test_a_text_is_what_the_tokenizer_makes_of_it(kind: str, text: str) -> None:
    tokenizer = BUILT[kind]
    (row,) = encoder(kind, "{text} {mask}").encode([{"text": text}])
    alone = tokenizer(text.strip(), add_special_tokens=False, split_special_tokens=True)
    assert list(row.ids[1 : row.slot]) == alone["input_ids"]


@QUICK
@given(st.sampled_from(list(BUILT)), PLAIN, PLAIN)
def test_pairs_are_encoded_like_the_tokenizers_own(kind: str, text: str, more: str) -> None:
    tokenizer = BUILT[kind]
    pvp = encoder(kind, "{text} {sep} {mask}, {more}")
    (row,) = pvp.encode([{"text": text, "more": more}])
    own = tokenizer(text, f"{tokenizer.mask_token}, {more}")
    assert list(row.ids) == own["input_ids"]
    if pvp.layout.has_types:
        types = collate([row], pvp.layout)["token_type_ids"][0].tolist()
        assert types == own["token_type_ids"]


@pytest.mark.parametrize("kind", BUILT)
def test_words_of_the_template_and_kept_columns_survive(kind: str) -> None:
    pvp = encoder(kind, "{text} in summary it was {mask}. {more:keep}", 40)
    (row,) = pvp.encode([{"text": "long " * 200, "more": "the goal was great"}])
    shown = BUILT[kind].decode(row.ids)
    assert len(row.ids) == 40
    assert "in summary it was" in shown
    assert "the goal was great" in shown
    assert (
        pvp.count_truncated([{"text": "long " * 200, "more": "x"}, {"text": "a", "more": "x"}]) == 1
    )


SHORT = '({text}) so "{more:keep}" it was {mask}, {sep} and {text:strip_punct} again'


@QUICK
@given(st.sampled_from(list(BUILT)), PLAIN, st.integers(30, 45))
def test_only_the_ends_of_columns_are_cut(kind: str, text: str, max_tokens: int) -> None:
    short, whole = encoder(kind, SHORT, max_tokens), encoder(kind, SHORT, 400)
    row = {"text": f"{text} " * 3, "more": "team"}
    (cut,), (uncut,) = short.encode([row]), whole.encode([row])
    left = iter(uncut.ids)
    assert all(token in left for token in cut.ids)  # in the same order
    assert len(cut.ids) == min(max_tokens, len(uncut.ids))
    shown = re.sub(r"\s", "", BUILT[kind].decode(cut.ids))
    masks, sep = BUILT[kind].mask_token, BUILT[kind].sep_token
    own = ["(", ')so"team"itwas' + masks + "," + sep, "and", "again" + sep]
    assert re.search(".*".join(map(re.escape, own)), shown), shown


def test_kept_columns_give_way_when_nothing_else_is_left() -> None:
    pvp = encoder("wordpiece", "{text} it was {mask} {more:keep}", 16)
    row = {"text": "long text", "more": "never again " * 20}
    (found,) = pvp.encode([row])
    assert BUILT["wordpiece"].decode(found.ids[1:-1]) == f"it was [MASK] {'never again ' * 5}never"
    assert pvp.count_truncated([row]) == 1


def test_the_longest_column_gives_first() -> None:
    pvp = encoder("wordpiece", "{text} {mask} {more}", 23)
    (row,) = pvp.encode([{"text": "long " * 50, "more": "great day night"}])
    ids = list(row.ids)
    assert ids.count(BUILT["wordpiece"].convert_tokens_to_ids("long")) == 17
    assert BUILT["wordpiece"].decode(ids[-4:-1]) == "great day night"


@pytest.mark.parametrize(
    ("kind", "template", "token"),
    [
        ("bytelevel", "{text} it was {mask}.", "Ġgreat"),
        ("bytelevel", "{text} it was\n{mask}.", "Ġgreat"),
        ("bytelevel", "{mask}: {text}", "great"),
        ("bytelevel", "{text}{mask}", "great"),
        ("bytelevel", "{text} ({mask})", "great"),
        ("bytelevel", '{text} "{mask}"', "great"),
        ("bytelevel", "{text} {sep} {mask}", "Ġgreat"),
        ("unigram", "{text} it was {mask}.", "▁great"),
        ("unigram", "{mask}: {text}", "▁great"),
        ("unigram", "{text} ({mask})", "great"),
        ("wordpiece", "{text} it was {mask}.", "great"),
        ("wordpiece", "{text} ({mask})", "great"),
    ],
)
def test_label_words_are_read_as_they_stand(kind: str, template: str, token: str) -> None:
    assert describe_words(encoder(kind, template))["b"] == [[token]]


def test_a_word_that_melts_with_what_is_before_it_is_read_alone() -> None:
    tokenizer = TOKENIZERS["bytelevel"]()
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend["model"]["vocab"]["(great"] = len(tokenizer)
    backend["model"]["merges"].append(["(", "great"])
    backend["pre_tokenizer"] = {"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated"}
    backend["pre_tokenizer"]["invert"] = False
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(backend)),
        **{k: v for k, v in tokenizer.special_tokens_map.items() if isinstance(v, str)},
    )
    assert tokenizer.tokenize("(great") == ["(great"]
    pvp = PatternEncoder(pattern("{text} ({mask})"), tokenizer, 48)
    assert describe_words(pvp)["b"] == [["great"]]


def test_problems_of_words_and_length() -> None:
    twice = encoder("wordpiece", "{text} {mask}", words=(("Great",), ("great",)))
    assert twice.problems() == [
        "label words 'Great' (a) and 'great' (b) are the same tokens for this model"
    ]
    unknown = encoder("wordpiece", "{text} {mask}", words=(("中",), ("great",)))
    assert unknown.problems() == ["label word '中' has tokens that the model does not know"]
    tight = encoder("wordpiece", "{text} in summary it was {mask}.", 8)
    assert tight.problems() == [
        "its own words and masks take 8 of max_tokens = 8, which leaves none for the text"
    ]
    assert encoder("wordpiece", "{text} {mask}").problems() == []
    assert check_encoders([tight, unknown]) == [
        f"pattern 'p': {problem}" for problem in (*tight.problems(), *unknown.problems())
    ]


@QUICK
@given(PLAIN, st.integers(1, 4))
def test_a_slot_can_be_resized(text: str, size: int) -> None:
    pvp = encoder("wordpiece", "{text} {mask} {sep} {text}", words=(("come back",), ("great",)))
    (row,) = pvp.encode([{"text": text}])
    sized = row.with_masks(2, size, pvp.layout.mask)
    assert sized.ids.count(pvp.layout.mask) == size
    assert sized.with_masks(size, 2, pvp.layout.mask) == row
    assert sized.ids[sized.boundary :] == row.ids[row.boundary :]


@QUICK
@given(st.lists(st.builds(lambda text: {"text": text}, WILD), min_size=1, max_size=5))
def test_encoded_rows_are_kept(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]
) -> None:
    file = tmp_path_factory.mktemp("encoded") / "tokens.parquet"
    encoded = encoder("wordpiece", "{text} {mask}").encode(rows)
    write_encoded(file, encoded)
    assert read_encoded(file) == encoded


def test_collate_pads_on_the_right() -> None:
    pvp = encoder("wordpiece", "{text} {mask} {sep} the end")
    rows = pvp.encode([{"text": "a"}, {"text": "a long text"}])
    inputs = collate(rows, pvp.layout)
    assert inputs["attention_mask"].sum(1).tolist() == [len(row.ids) for row in rows]
    assert (inputs["input_ids"][0, len(rows[0].ids) :] == pvp.layout.pad).all()
    assert inputs["token_type_ids"][1, rows[1].boundary :].all()


def test_nothing_to_encode() -> None:
    assert encoder("wordpiece", "{text} {mask}").encode([]) == []


def test_a_tokenizer_without_a_mask() -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=TOKENIZERS["wordpiece"]().backend_tokenizer, pad_token="[PAD]"
    )
    with pytest.raises(UserError, match="has no mask token; name a masked LM"):
        layout_of(tokenizer)
