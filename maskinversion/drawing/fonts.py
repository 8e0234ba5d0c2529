"""Fonts that have the letters of a text, of those on this machine: Pillow's own has few beside the English ones."""

import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, lru_cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import ImageFont

from ..errors import InputWarning

# Files as the systems have them, which Pillow finds by their name: first those of many alphabets, then of single ones.
FILES = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "segoeui.ttf", "Arial Unicode.ttf", "Arial.ttf", "arial.ttf",
    "LiberationSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "NotoSansSC-Regular.otf", "NotoSansSC-VF.ttf",
    "SourceHanSansSC-Regular.otf", "wqy-microhei.ttc", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf", "DroidSansFallback.ttf",
    "msyh.ttc", "simsun.ttc", "msgothic.ttc", "YuGothR.ttc", "malgun.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc",
    "\u30d2\u30e9\u30ae\u30ce\u89d2\u30b4\u30b7\u30c3\u30af W3.ttc", "AppleSDGothicNeo.ttc",
    "NotoSansArabic-Regular.ttf", "NotoSansHebrew-Regular.ttf", "NotoSansDevanagari-Regular.ttf", "NotoSansThai-Regular.ttf",
    "Nirmala.ttf", "Nirmala.ttc", "tahoma.ttf", "Symbola.ttf", "seguisym.ttf", "NotoSansSymbols2-Regular.ttf",
)  # fmt: skip
ABSENT = "\uffff"  # never a letter
CHECKED_AT = 20  # pixels

Letters = dict[str, str | None]  # the file of the font that each letter is drawn in; None is Pillow's own


def chosen(text: str) -> tuple[str, Letters]:
    """The text as it can be drawn here, and the font of each of its letters: of all the same one, where one has all of them.

    A letter that no font has becomes what it is composed of (e for an accented e), or a question mark, with a warning.
    """
    text = unicodedata.normalize("NFC", " ".join(text.encode("utf-8", "replace").decode().split()))
    needed = {letter for letter in text if not letter.isspace() and unicodedata.category(letter) != "Cf"}
    for path in files():
        if all(has(path, letter) for letter in needed):
            return text, dict.fromkeys(text, path)
    made, lost, path, fonts = "", "", None, {}
    for letter in text:
        form = letter
        if unicodedata.category(letter) in ("Mn", "Me"):  # stands on the letter before it
            form = letter if has(path, letter) else ""
        elif letter in needed:
            forms = (letter, *spelt(letter), "?")
            form, path = next((form, path) for form in forms for path in files() if has(path, form))
            lost += letter if form != letter and letter not in lost else ""
        made += form
        fonts[form] = path
    if lost:
        words = f"no font on this machine has {' '.join(lost)}: install one that has, such as Noto Sans CJK"
        warnings.warn(words, InputWarning, stacklevel=3)
    return made, fonts


def spelt(letter: str) -> tuple[str, ...]:
    """The letter without its accents, where that is one letter."""
    parts = [part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part)]
    return tuple(parts) if len(parts) == 1 else ()


def pieces(text: str, letters: Letters, size: int) -> list[tuple[str, ImageFont.FreeTypeFont]]:
    """The text in pieces, each with the font that it is drawn in."""
    runs = groupby(text, lambda letter: letters.get(letter))
    return [("".join(run), opened(path, size)) for path, run in runs]


def files() -> Iterator[str | None]:
    """The fonts that are here, the preferred ones first; looked for as they are asked for."""
    yield None
    for name in (*of_matplotlib(), *FILES):
        path = found(name)
        if path is not None:
            yield path


@cache
def of_matplotlib() -> tuple[str, ...]:
    """The font that matplotlib brings along, where it is installed."""
    with suppress(ImportError, ValueError):
        here = find_spec("matplotlib")
        if here is not None and here.submodule_search_locations:
            return (str(Path(here.submodule_search_locations[0], "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")),)
    return ()


@cache
def found(name: str) -> str | None:
    """The path of a font file of this name or path, in the folders where this system has its fonts."""
    try:
        return str(ImageFont.truetype(name, CHECKED_AT).path)
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=128)
def opened(path: str | None, size: int) -> Any:  # a FreeTypeFont, or Pillow's plain one where it has no FreeType
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)


@lru_cache(maxsize=8192)
def has(path: str | None, letter: str) -> bool:
    """Whether a font has a letter: whether it is drawn otherwise than what no font has."""
    return shape(path, letter) != shape(path, ABSENT)


def shape(path: str | None, letter: str) -> tuple:
    mask, offset = opened(path, CHECKED_AT).getmask2(letter)
    return mask.size, offset, bytes(mask)
