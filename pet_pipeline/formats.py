"""Foreign files: list the tables of a path or URL and open them as Arrow datasets."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset as ds
import pyarrow.json
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from pet_pipeline.errors import UserError, nearest

FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
}
DELIMITERS = (",", ";", "\t", "|")
USUAL = {"csv": ",", "tsv": "\t"}  # delimiters of these formats
SAMPLE_BYTES = 2**16  # of a CSV file, to see its delimiter by; fields of csv's reader may be longer
BLOCK_MB = 16  # of CSV or JSON that Arrow parses at once; the limit of a row's length
ARROW_PREAMBLE = re.compile(
    r"(Error creating dataset\. .* )?Could not open \w+ input source '.*?': (Invalid: )?"
)


@dataclass(frozen=True)
class Listing:
    """The files of a path or URL; by their names below it, the paths on its filesystem."""

    filesystem: AbstractFileSystem
    paths: dict[str, str]  # one file that is named itself has the name ""


def suffix_of(file: str) -> str:
    """The suffix of a file, whatever its case.

    >>> suffix_of("data/POOL.CSV")
    '.csv'
    """
    return Path(file).suffix.lower()


def list_files(source: str) -> Listing:
    """The files with a known suffix that are not hidden below the source, in order.

    Raises `UserError` if there is no such file or folder, or it cannot be listed.
    """
    try:
        filesystem, root = url_to_fs(source)
        if not filesystem.exists(root):
            raise UserError(f"{source}: no such file or folder{_neighbours(source)}")
        paths = [root] if filesystem.isfile(root) else sorted(filesystem.find(root))
    except (ValueError, ImportError, OSError) as error:
        raise UserError(f"{source}: cannot be read: {first_line(error)}") from None
    tables = [path for path in paths if suffix_of(path) in FORMATS]
    names = {path.removeprefix(root).strip("/"): path for path in tables}
    return Listing(filesystem, {n: path for n, path in names.items() if not is_hidden(n)})


def open_file(
    path: str, filesystem: AbstractFileSystem, wanted: Collection[str] = ()
) -> ds.Dataset:
    """A file as an Arrow dataset, with a schema of its own.

    wanted: names of columns that help to tell which delimiter a CSV file has
    """
    kind = FORMATS[suffix_of(path)]
    if kind == "json":
        return _open_json(path, filesystem)
    if kind in USUAL:
        sample = filesystem.head(path, SAMPLE_BYTES).decode("utf-8-sig", errors="replace")
        return _open_csv(path, filesystem, find_delimiter(sample, wanted, usual=USUAL[kind]))
    return ds.dataset([path], format=kind, filesystem=filesystem)


def find_delimiter(sample: str, wanted: Collection[str] = (), *, usual: str = ",") -> str:
    """The delimiter of a CSV file, told by its first lines.

    It is the one by which most of the wanted columns are in the header; of several, one that
    gives every row as many fields as the header, more than one; then the one with the most
    columns; then the usual one.

    >>> find_delimiter("text;label\\nyes, good;happy\\n"), find_delimiter("text\\na|b\\n")
    (';', ',')
    """

    def rank(delimiter: str) -> tuple[int, bool, int]:
        header, *rows = _fields(sample, delimiter) or [[]]
        if not sample.endswith("\n"):  # the file may continue in the middle of the last row
            rows = rows[:-1]
        even = len(header) > 1 and all(len(row) == len(header) for row in rows)
        return len(set(wanted) & set(header)), even, len(header)

    return max(dict.fromkeys((usual, *DELIMITERS)), key=rank)


def delimiter_of(dataset: ds.Dataset) -> str | None:
    """The delimiter that a dataset of `open_file` is read with; None if it is not CSV."""
    form = getattr(dataset, "format", None)
    return form.parse_options.delimiter if isinstance(form, ds.CsvFileFormat) else None


def as_written(kind: pa.DataType) -> pa.DataType:
    """A type that Arrow infers from JSON, with strings for dates and for what has no value."""
    if pa.types.is_timestamp(kind) or pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(as_written(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(as_written(field.type)) for field in kind])
    return kind


@contextmanager
def reading(place: str) -> Iterator[None]:
    """Turn what Arrow and filesystems raise inside into a `UserError` about the place."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise UserError(f"{place}: cannot be read: {first_line(error)}") from None


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder on the way to it, is not meant to be read.

    >>> is_hidden("2024/part-0.parquet"), is_hidden(".cache/part-0.parquet")
    (False, True)
    """
    return any(part.startswith((".", "_")) for part in name.split("/"))


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if "straddling object" in line:
        return f"a row is longer than {BLOCK_MB} MB"
    if "invalid UTF8" in line:
        return "is not UTF-8 text; save it as UTF-8 (in a spreadsheet: CSV UTF-8)"
    counts = re.search(r"Expected (\d+) columns, got (\d+)", line)
    if counts and int(counts[2]) > int(counts[1]):
        line += "; put texts that contain the delimiter in double quotes"
    return ARROW_PREAMBLE.sub("", line)


def _neighbours(source: str) -> str:
    remote = "://" in source
    return "" if remote else nearest(source, sorted(map(str, Path(source).parent.glob("*"))))


def _fields(sample: str, delimiter: str) -> list[list[str]]:
    """The fields of each line that is not empty; delimiters and line ends in quotes are text."""
    return [row for row in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter) if row]


def _open_csv(path: str, filesystem: AbstractFileSystem, delimiter: str) -> ds.Dataset:
    """A CSV file with every column as text, as it is written.

    An empty line of a one-column file is a row; of other files, nothing.
    """
    form = _csv_format(delimiter, ignore_empty_lines=True)
    names = ds.dataset([path], format=form, filesystem=filesystem).schema.names
    if len(names) == 1:
        counting = _csv_format(delimiter, ignore_empty_lines=False)
        # Empty lines before the header would be taken for it.
        if ds.dataset([path], format=counting, filesystem=filesystem).schema.names == names:
            form = counting
    schema = pa.schema([(name, pa.string()) for name in names])
    return ds.dataset([path], schema=schema, format=form, filesystem=filesystem)


def _csv_format(delimiter: str, *, ignore_empty_lines: bool) -> ds.CsvFileFormat:
    return ds.CsvFileFormat(
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=ignore_empty_lines
        ),
        read_options=pyarrow.csv.ReadOptions(block_size=BLOCK_MB * 2**20),
        convert_options=pyarrow.csv.ConvertOptions(strings_can_be_null=False),
    )


def _open_json(path: str, filesystem: AbstractFileSystem) -> ds.Dataset:
    """A file of JSON lines whose strings stay as they are written.

    Arrow takes strings that look like dates for timestamps, and a column without a value in the
    first block for one without any value.
    """
    options = pyarrow.json.ReadOptions(block_size=BLOCK_MB * 2**20)
    form = ds.JsonFileFormat(read_options=options)
    inferred = ds.dataset([path], format=form, filesystem=filesystem).schema
    fields = [field.with_type(as_written(field.type)) for field in inferred]
    return ds.dataset([path], schema=pa.schema(fields), format=form, filesystem=filesystem)
