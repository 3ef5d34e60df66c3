"""What tests share: tiny models, their tokenizers and texts, and whole runs.

Imported as `from testing import ...`; fixtures are in `conftest`.
"""

from __future__ import annotations

import functools
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.run import Run

CPU = Compute(device="cpu", precision="float32", threads=1)

WORDS = """
the a it was is i we they my your and or but not very so this that in on of to for with day night
food place film team game match goal bank market shop stock news great good wonderful bad terrible
awful world sports business tech yes no maybe sad happy all just summary question answer what mood
feel category topic about never gladly come back again hand other even words nice long text more
""".split()  # noqa: SIM905
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'\"()[]{}<>-/@#$%&*_=+"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

SAD = ["terrible day", "awful food so bad", "the film was bad and terrible", "an awful night again"]
HAPPY = ["great day", "wonderful food so good", "the film was good and great", "a wonderful night"]
LABELS = ("sad", "happy")


def wordpiece_tokenizer() -> PreTrainedTokenizerFast:
    """A BERT tokenizer over a small vocabulary that can spell any ASCII word."""
    pieces = [*SPECIAL, *CHARACTERS, *(f"##{c}" for c in CHARACTERS), *WORDS]
    vocabulary = {piece: n for n, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    cls, sep = vocabulary["[CLS]"], vocabulary["[SEP]"]
    backend.post_processor = processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def bytelevel_tokenizer() -> PreTrainedTokenizerFast:
    """A RoBERTa tokenizer: byte-level BPE with merges that spell the small vocabulary."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: n for n, piece in enumerate([*special, *alphabet])}
    merges: list[tuple[str, str]] = []
    for word in [*(f"Ġ{w}" for w in WORDS), *WORDS]:
        left = word[0]
        for right in word[1:]:
            if left + right not in vocabulary:
                vocabulary[left + right] = len(vocabulary)
                merges.append((left, right))
            left += right
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(
        ("</s>", vocabulary["</s>"]), ("<s>", vocabulary["<s>"]), add_prefix_space=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token=transformers.AddedToken("<mask>", lstrip=True, special=True),
        model_input_names=["input_ids", "attention_mask"],
    )


def unigram_tokenizer() -> PreTrainedTokenizerFast:
    """A SentencePiece-like tokenizer: Unigram with Metaspace, as of ALBERT or XLM-R."""
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [(piece, 0.0) for piece in special]
    pieces += [(f"▁{word}", -2.0) for word in WORDS] + [(word, -4.0) for word in WORDS]
    pieces += [("▁", -5.0)] + [(c, -8.0) for c in CHARACTERS]
    unique = list(dict(pieces).items())
    backend = Tokenizer(models.Unigram(unique, unk_id=1))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace()
    ids = {piece: n for n, (piece, _) in enumerate(unique)}
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        pad_token="<pad>",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token=transformers.AddedToken("[MASK]", lstrip=True, special=True),
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


TOKENIZERS = {
    "wordpiece": wordpiece_tokenizer,
    "bytelevel": bytelevel_tokenizer,
    "unigram": unigram_tokenizer,
}

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
RELATIVE = {**SMALL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {  # tokenizer, configuration
    "bert": ("wordpiece", {**SMALL, "max_position_embeddings": 256}),
    "roberta": ("bytelevel", SMALL),
    "albert": ("unigram", {**SMALL, "embedding_size": 16}),
    "distilbert": ("wordpiece", {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}),
    "electra": ("wordpiece", {**SMALL, "embedding_size": 16}),
    "deberta-v2": ("unigram", RELATIVE),
    "deberta-v2-new-head": ("unigram", {**RELATIVE, "legacy": False}),
    "modernbert": ("bytelevel", SMALL),
    "xlm-roberta": ("unigram", SMALL),
    "mpnet": ("wordpiece", SMALL),
}
UNUSUAL: dict[str, tuple[str, dict[str, Any]]] = {  # heads, or embeddings, of their own kind
    "mobilebert": (
        "wordpiece",
        {**SMALL, "num_attention_heads": 4, "embedding_size": 16, "intra_bottleneck_size": 16},
    ),
    "esm": (
        "wordpiece",
        {
            **SMALL,
            "position_embedding_type": "rotary",
            "token_dropout": True,
            "mask_token_id": SPECIAL.index("[MASK]"),
            "pad_token_id": SPECIAL.index("[PAD]"),
        },
    ),
}
WITHOUT_TYPES = ("distilbert", "modernbert", "xlm-roberta", "mpnet", "esm")


def random_mlm(name: str, **options: Any) -> Any:
    """A tiny masked LM of an architecture, also of an unusual one, always with the same weights."""
    _, configuration = (ARCHITECTURES | UNUSUAL)[name]
    config = AutoConfig.for_model(name.removesuffix("-new-head"), **{**configuration, **options})
    torch.manual_seed(0)
    return AutoModelForMaskedLM.from_config(config, attn_implementation="eager").eval()


def sharpened(model: Any) -> Any:
    """The model with larger weights: what it says depends on every word, by more than rounding."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(20 if parameter.ndim > 1 else 1)
    return model.eval()


def save_mlm(name: str, folder: Path) -> Path:
    """Write a tiny masked LM of an architecture with its tokenizer; returns the folder."""
    tokenizer = TOKENIZERS[(ARCHITECTURES | UNUSUAL)[name][0]]()
    if name in WITHOUT_TYPES:
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    special = {
        f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id")
        for kind in ("pad", "bos", "eos", "cls", "sep")
    }
    random_mlm(name, vocab_size=len(tokenizer), **special).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def t5_tokenizer() -> PreTrainedTokenizerFast:
    """A T5 tokenizer, with three sentinels, over the small vocabulary."""
    sentinels = [f"<extra_id_{n}>" for n in range(3)]
    special = ["<pad>", "</s>", "<unk>", *sentinels]
    pieces = [(piece, 0.0) for piece in special] + [(f"▁{word}", -2.0) for word in WORDS]
    pieces += [("▁", -5.0)] + [(c, -8.0) for c in CHARACTERS]
    backend = Tokenizer(models.Unigram(list(dict(pieces).items()), unk_id=2))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=sentinels,
        model_input_names=["input_ids", "attention_mask"],
    )


def save_t5(folder: Path) -> Path:
    """Write a tiny random T5 with its tokenizer; returns the folder."""
    tokenizer = t5_tokenizer()
    config = T5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@functools.cache
def load_pet_full() -> Callable[[Settings, Run], Any]:
    """The pipeline of pipelines/pet_full.py; loaded late, so that most tests do without it."""
    program = Path(__file__).parents[1] / "pipelines" / "pet_full.py"
    pipeline: Callable[[Settings, Run], Any] = runpy.run_path(str(program))["pet_full"]
    return pipeline


def run(settings: Settings, **options: Any) -> Run:
    """A whole run; its `units` say what is in it.

    options: plan, until and force, as for `Run.open`
    """
    with Run.open(settings, **options) as opened:
        load_pet_full()(settings, opened)
    return opened


def todo(settings: Settings) -> list[str]:
    """The units that a run with these settings would execute, as stage/unit, in order."""
    planned = run(settings, plan=True)
    undone = [unit.dir for unit in planned.units if not unit.result()]
    root = Path(settings.output)
    return list(dict.fromkeys(folder.relative_to(root).as_posix() for folder in undone))


def rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file."""
    found: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return found
