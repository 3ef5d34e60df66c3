"""Rows in patterns come out as in running text, fit, and every token keeps what it is."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from testing import TOKENIZERS, WORDS
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from pet_pipeline.encoded import Encoded, Role
from pet_pipeline.encoding import (
    LabelWords,
    PatternEncoder,
    check_encoders,
    describe_words,
    layout_of,
)
from pet_pipeline.errors import UserError
from pet_pipeline.patterns import Field, pattern_of

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
BUILT = {kind: make() for kind, make in TOKENIZERS.items()}
KINDS = st.sampled_from(list(BUILT))
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
DEMONSTRATED = ["{demos} {text} so {mask}", "{text} {demos} {mask} {sep} {more}"]
SHORT = (("bad",), ("great",))
LONG = (("bad",), ("come back",))

Token = tuple[int, int, int]  # id, role, segment


def encoder(
    kind: str, template: str, max_tokens: int = 400, words: tuple[tuple[str, ...], ...] = SHORT
) -> PatternEncoder:
    pattern = pattern_of("p", template, tuple("abc"[: len(words)]), words)
    return PatternEncoder(pattern, BUILT[kind], max_tokens)


def tokens(row: Encoded) -> list[Token]:
    return list(zip(row.ids, row.roles, row.segments, strict=True))


def ids_of(row: Encoded, *roles: Role) -> list[int]:
    return [token for token, role, _ in tokens(row) if role in roles]


@QUICK
@given(KINDS, st.sampled_from(TEMPLATES), WILD, PLAIN, st.integers(36, 60))
def test_rows_fit_and_keep_their_slot(
    kind: str, template: str, text: str, more: str, max_tokens: int
) -> None:
    pvp = encoder(kind, template, max_tokens, LONG)
    layout = pvp.layout
    (row,) = pvp.encode([{"text": text, "more": more}])
    assert len(row) == len(row.ids) == len(row.roles) == len(row.segments) <= max_tokens
    assert row.ids[row.slot] == (layout.mask,) * pvp.words.n_masks
    assert row.roles.count(Role.MASK) == pvp.words.n_masks
    middle = layout.middle if "{sep}" in template else ()
    assert ids_of(row, Role.SPECIAL) == [*layout.prefix, *middle, *layout.suffix]


@QUICK
@given(KINDS, PLAIN, PLAIN)
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
@given(KINDS, WILD)
def test_a_text_is_what_the_tokenizer_makes_of_it(kind: str, text: str) -> None:
    tokenizer = BUILT[kind]
    (row,) = encoder(kind, "{text} {mask}").encode([{"text": text}])
    alone = tokenizer(text.strip(), add_special_tokens=False, split_special_tokens=True)
    assert ids_of(row, Role.TEXT) == alone["input_ids"]


@QUICK
@given(KINDS, PLAIN, PLAIN)
def test_pairs_are_encoded_like_the_tokenizers_own(kind: str, text: str, more: str) -> None:
    tokenizer = BUILT[kind]
    pvp = encoder(kind, "{text} {sep} {mask}, {more}")
    (row,) = pvp.encode([{"text": text, "more": more}])
    own = tokenizer(text, f"{tokenizer.mask_token}, {more}")
    assert list(row.ids) == own["input_ids"]
    padding = pvp.layout.padding
    assert padding.pad == tokenizer.pad_token_id
    assert padding.has_types == ("token_type_ids" in own)
    if padding.has_types:
        assert [s * padding.second_type for s in row.segments] == own["token_type_ids"]


SPACED = [
    "{text} it was {mask} so {more:keep}",
    "just {mask} now {sep} {text} and {more}",
    "the {text} {more} {sep} in {mask}",
    "{text} and {demos} {more} so {mask}",
]


def expected_tokens(pvp: PatternEncoder, row: dict[str, str]) -> list[Token]:
    """What a row should be, part by part: right where all parts have spaces between them."""
    layout = pvp.layout
    expected = [(token, int(Role.SPECIAL), 0) for token in layout.prefix]
    segment, space = 0, ""
    for part in pvp.pattern.parts:
        text, role = (part, Role.TEMPLATE) if isinstance(part, str) else ("", Role.TEXT)
        if isinstance(part, Field):
            slots = {
                "mask": ([layout.mask] * pvp.words.n_masks, Role.MASK),
                "sep": (layout.middle, Role.SPECIAL),
                "demos": ([layout.mask], Role.DEMONSTRATION),
            }
            if part.name in slots:
                ids, role = slots[part.name]
                expected += [(token, int(role), segment) for token in ids]
                segment += part.name == "sep"
                # What follows a mask keeps its space: there the word ends.
                space = " " if part.name == "mask" else ""
                continue
            text = row[part.name]
        elif expected[-1][1] in (Role.SPECIAL, Role.DEMONSTRATION):
            text = text.lstrip()
        words = (space if not text.startswith(" ") else "") + text.rstrip()
        ids = pvp.tokenizer(words, add_special_tokens=False)["input_ids"]
        if words.strip():
            expected += [(token, int(role), segment) for token in ids]
        space = " " if text.endswith(" ") else ""
    return expected + [(token, int(Role.SPECIAL), segment) for token in layout.suffix]


@QUICK
@given(KINDS, st.sampled_from(SPACED), PLAIN, PLAIN)
def test_every_token_has_its_role_and_segment(
    kind: str, template: str, text: str, more: str
) -> None:
    pvp = encoder(kind, template, words=LONG)
    row = {"text": text, "more": more}
    (found,) = pvp.encode([row])
    assert tokens(found) == expected_tokens(pvp, row)


def test_roles_and_segments_of_a_row() -> None:
    (row,) = encoder("wordpiece", "so, {text}! {mask} {sep} {more:keep}", words=LONG).encode(
        [{"text": "[MASK]", "more": "great day"}]
    )
    shown = BUILT["wordpiece"].convert_ids_to_tokens(list(row.ids))
    roles = "".join("SxtMDP"[role] for role in row.roles)
    assert shown == (
        "[CLS] so , [ m ##a ##s ##k ] ! [MASK] [MASK] [SEP] great day [SEP]".split()  # noqa: SIM905
    )
    assert roles == "Sxx" + "tttttt" + "xMMS" + "ttS"
    assert list(row.segments) == [0] * 13 + [1] * 3


@QUICK
@given(KINDS, st.sampled_from(TEMPLATES + DEMONSTRATED), WILD, PLAIN, st.integers(30, 50))
def test_truncation_takes_text_alone_and_changes_no_role(
    kind: str, template: str, text: str, more: str, max_tokens: int
) -> None:
    row = {"text": text * 2, "more": f"{more} {more}"}
    (cut,) = encoder(kind, template, max_tokens).encode([row])
    (whole,) = encoder(kind, template).encode([row])
    kept = iter(tokens(whole))
    assert all(token in kept for token in tokens(cut))  # in the same order
    own = [role for role in Role if role != Role.TEXT]
    assert ids_of(cut, *own) == ids_of(whole, *own)
    assert len(cut.without(Role.DEMONSTRATION)) <= max_tokens


@pytest.mark.parametrize("template", DEMONSTRATED)
def test_demonstrations_have_one_token_that_counts_for_nothing(template: str) -> None:
    row = {"text": "long " * 50, "more": "day"}
    (found,) = encoder("wordpiece", template, 24).encode([row])
    (plain,) = encoder("wordpiece", template.replace("{demos} ", ""), 24).encode([row])
    assert found.roles.count(Role.DEMONSTRATION) == 1
    assert len(found) == 25
    assert found.without(Role.DEMONSTRATION) == plain


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


TIGHT = '({text}) so "{more:keep}" it was {mask}, {sep} and {text:strip_punct} again'


@QUICK
@given(KINDS, PLAIN, st.integers(30, 45))
def test_only_the_ends_of_columns_are_cut(kind: str, text: str, max_tokens: int) -> None:
    short, whole = encoder(kind, TIGHT, max_tokens), encoder(kind, TIGHT, 400)
    row = {"text": f"{text} " * 3, "more": "team"}
    (cut,), (uncut,) = short.encode([row]), whole.encode([row])
    left = iter(uncut.ids)
    assert all(token in left for token in cut.ids)  # in the same order
    assert len(cut.ids) == min(max_tokens, len(uncut.ids))
    shown = re.sub(r"\s", "", BUILT[kind].decode(cut.ids))
    masks, sep = BUILT[kind].mask_token, BUILT[kind].sep_token
    own = ["(", ')so"team"itwas' + masks + "," + sep, "and", "again" + sep]
    assert re.search(".*".join(map(re.escape, own)), shown), shown


def test_kept_columns_are_cut_when_nothing_else_is_left() -> None:
    pvp = encoder("wordpiece", "{text} it was {mask} {more:keep}", 16)
    row = {"text": "long text", "more": "never again " * 20}
    (found,) = pvp.encode([row])
    assert BUILT["wordpiece"].decode(found.ids[1:-1]) == f"it was [MASK] {'never again ' * 5}never"
    assert pvp.count_truncated([row]) == 1


def test_the_longest_column_is_cut_first() -> None:
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


@pytest.mark.parametrize("template", ["{mask}: {text}", "{text} ({mask})", "{text}{mask}"])
def test_a_label_word_takes_its_spaced_form_where_that_has_fewer_tokens(template: str) -> None:
    # Byte-level vocabularies know few whole words without a space before.
    assert BUILT["bytelevel"].tokenize("sports") == ["sp", "or", "t", "s"]
    words = (("sports",), ("agreat",), ("great",))
    assert describe_words(encoder("bytelevel", template, words=words)) == {
        "a": [["Ġsports"]],
        "b": [["a", "great"]],  # five tokens behind a space
        "c": [["great"]],  # one either way: as it stands
    }


@QUICK
@given(KINDS, st.sampled_from(TEMPLATES), PLAIN)
def test_no_form_of_a_label_word_has_fewer_tokens(kind: str, template: str, word: str) -> None:
    pvp = encoder(kind, template)
    ((found,),) = encoder(kind, template, words=((word,),)).words.tokens
    alone, spaced = (
        tuple(BUILT[kind](text, add_special_tokens=False)["input_ids"])
        for text in (word, f" {word}")
    )
    assert len(found) <= min(len(alone), len(spaced))
    assert pvp.tokens_at_mask([word]) == [found]


def test_a_word_that_is_one_token_with_what_is_before_it_is_read_alone() -> None:
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
    pattern = pattern_of("p", "{text} ({mask})", ("a", "b"), SHORT)
    assert describe_words(PatternEncoder(pattern, tokenizer, 48))["b"] == [["great"]]


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


def test_nothing_to_encode() -> None:
    assert encoder("wordpiece", "{text} {mask}").encode([]) == []
    assert encoder("wordpiece", "{mask}").encode([{}])[0].ids == (2, 4, 3)


def test_label_words_average() -> None:
    words = LabelWords((((1,), (2, 5)), ((3,),)))
    assert words.mean.tolist() == [[0.5, 0.0], [0.5, 0.0], [0.0, 1.0]]
    assert (words.words, words.n_masks) == ([(1,), (2, 5), (3,)], 2)


@pytest.mark.parametrize("kind", BUILT)
def test_layouts_are_what_the_tokenizer_does_with_a_pair(kind: str) -> None:
    tokenizer, layout = BUILT[kind], layout_of(BUILT[kind])
    a, b = (
        tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in ("great day", "bad night")
    )
    pair = tokenizer("great day", "bad night")["input_ids"]
    assert [*layout.prefix, *a, *layout.middle, *b, *layout.suffix] == pair
    assert layout.mask == tokenizer.mask_token_id


def test_a_tokenizer_without_a_mask() -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=TOKENIZERS["wordpiece"]().backend_tokenizer, pad_token="[PAD]"
    )
    with pytest.raises(UserError, match="has no mask token; name a masked LM"):
        layout_of(tokenizer)


def test_encoding_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, pet_pipeline.encoding\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
