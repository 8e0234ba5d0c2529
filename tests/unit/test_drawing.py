"""What is drawn on pictures."""

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

import maskinversion as mi
from maskinversion.drawing import fonts, labels
from maskinversion.drawing.labels import COLOURS, draw_labels
from maskinversion.drawing.overlay import outline


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (300, 451), (1000, 777), (5, 2000), (160, 1)])
def test_the_outline_is_what_a_square_window_finds(size):
    """Pixels outside of a mask with a pixel of it in the square around them, pooled by brute force."""
    width = max(1, min(size) // 150)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        mask = F.interpolate(torch.rand(1, 1, 4, 6, generator=generator), size=size, mode="bilinear")[0, 0]
        inside = (mask >= 0.5).float()
        grown = F.max_pool2d(inside[None, None], 2 * width + 1, stride=1, padding=width)[0, 0]
        assert torch.equal(outline(mask), grown - inside)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float16, torch.float64])
def test_a_mask_of_any_type_has_an_outline(dtype):
    mask = torch.zeros(40, 40)
    mask[10:20, 10:20] = 1
    found = outline(mask.to(dtype))
    assert found.is_floating_point() and found.sum() == 12 * 12 - 10 * 10


# Labels


def boxes_of(drawn: torch.Tensor, index: int = 0) -> tuple[int, int, int, int]:
    """top, left, bottom, right of what is painted in the colour of a label's box."""
    colour = torch.tensor(COLOURS[index]) / 255
    rows, columns = ((drawn - colour).abs().amax(2) < 1e-3).nonzero(as_tuple=True)
    return int(rows.min()), int(columns.min()), int(rows.max()), int(columns.max())


def ink(drawn: torch.Tensor) -> torch.Tensor:
    return (drawn < 0.2).all(2)


def reference(image, masks):
    """What tints a picture, written out without any saving."""
    painted = image.clone()
    for index, mask in enumerate(masks):
        colour = torch.tensor(COLOURS[index % len(COLOURS)]) / 255
        painted = painted + (0.25 * mask + outline(mask)).clamp(max=1)[..., None] * (colour - painted)
    return (painted * 255).round() / 255


@pytest.mark.parametrize("size", [(96, 160), (400, 301), (3, 5)])
def test_regions_are_tinted_wherever_they_lie(size):
    image, noise = torch.rand(*size, 3), torch.rand(4, 1, 4, 5)
    masks = (F.interpolate(noise, size=size, mode="bilinear")[:, 0] - 0.4).clamp(min=0)
    masks[1, : size[0] // 2] = 0
    masks[2] = 0
    masks[3, :, -1], masks[3, 0] = 1, 1
    before = image.clone(), masks.clone()
    assert (draw_labels(image, masks, [""] * 4) - reference(image, masks)).abs().max() < 1.01 / 255
    assert torch.equal(image, before[0]) and torch.equal(masks, before[1])
    halves = draw_labels(image, masks > 0, [""] * 4)
    assert (halves - reference(image, (masks > 0).float())).abs().max() < 1.01 / 255


CAPTIONS = {
    "one line": "cat",
    "words": "a large brown dog lies on the sofa beside the window and looks at a very small grey cat " * 2,
    "one long word": "Donaudampfschifffahrtsgesellschaftskapitaen" * 4,
    "letters of their own": "\u4f60\u597d" * 30,
    "much too long": "a dog and " * 500,
}


@pytest.mark.parametrize("caption", CAPTIONS)
@pytest.mark.parametrize("size", [(300, 400), (400, 120), (60, 300), (40, 40)], ids=str)
def test_a_label_stays_inside_the_picture(caption, size, monkeypatch):
    """Drawn on a larger picture whose middle is the size that the label is made for: nothing is outside of it."""
    written = []
    monkeypatch.setattr(labels.Text, "write", lambda text, pen, box: written.append((text, box)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draw_labels(torch.full((*size, 3), 0.9), torch.ones(1, *size), [CAPTIONS[caption]])
    ((text, (left, top, right, bottom)),) = written
    assert left >= 0 and top >= 0 and right <= size[1] and bottom <= size[0]
    monkeypatch.undo()
    canvas = Image.new("L", (size[1] + 200, size[0] + 200))
    text.write(InBlack(ImageDraw.Draw(canvas)), (left + 100, top + 100, right + 100, bottom + 100))
    found = canvas.getbbox()
    assert found[0] >= 100 and found[1] >= 100 and found[2] <= 100 + size[1] and found[3] <= 100 + size[0]
    joined = "".join(text.lines).replace(" ", "")
    whole = CAPTIONS[caption].replace(" ", "") if caption != "letters of their own" else None
    if joined.endswith("..."):
        assert whole is None or whole.startswith(joined[:-3])
    else:
        assert whole in (None, joined)
    if caption == "words" and size == (300, 400):
        assert len(text.lines) > 1 and " ".join(text.lines) == CAPTIONS[caption].strip()  # broken between words only


class InBlack:
    """A pen that writes white on black, to see all of what is written."""

    def __init__(self, pen):
        self.pen = pen

    def text(self, place, text, fill, font, anchor):
        self.pen.text(place, text, 255, font, anchor=anchor)


@pytest.mark.parametrize("size", [(8, 5000), (5000, 8), (1, 1), (12, 12)])
def test_a_picture_without_room_for_a_label_goes_without(size):
    drawn = draw_labels(torch.full((*size, 3), 0.9), torch.ones(1, *size), ["a dog"])
    assert drawn.shape == (*size, 3) and not ink(drawn).any()


def truth(text: str, path: str | Path) -> np.ndarray:
    """A text drawn in a font of 20 px, cut to its letters."""
    canvas = Image.new("L", (600, 80))
    ImageDraw.Draw(canvas).text((20, 50), text, 255, ImageFont.truetype(str(path), 20), anchor="ls")
    solid = canvas.point(lambda value: 255 * (value > 128))
    return np.array(solid.crop(solid.getbbox())) > 0


def drawn_in_ink(text: str) -> np.ndarray:
    drawn = draw_labels(torch.full((440, 600, 3), 0.9), torch.ones(1, 440, 600), [text])
    top, left, bottom, right = boxes_of(drawn)
    canvas = Image.fromarray(((drawn[top : bottom + 1, left : right + 1] < 0.45).all(2).numpy() * 255).astype(np.uint8))
    return np.array(canvas.crop(canvas.getbbox())) > 0


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two drawings are alike but for the part of a pixel that they are moved by."""
    return max(abs(x - y) for x, y in zip(a.shape, b.shape)) <= 1 and abs(a.mean() - b.mean()) < 0.15 * b.mean()


@pytest.mark.parametrize(
    "text",
    [
        "Gr\u00fc\u00dfe, \u00c4pfel",
        "5 \u20ac \u2013 na\u00efve \u2014 caf\u00e9",
        "\u0141\u00f3d\u017a",
        "\u0395\u03bb\u03bb\u03b7\u03bd",
        "\u043f\u0440\u0438\u0432\u0435\u0442",
    ],
)
def test_letters_beyond_english_are_drawn_in_a_font_that_has_them(text):
    matplotlib = pytest.importorskip("matplotlib")
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    assert set(map(ord, text)) <= set(fonttools().TTFont(path).getBestCmap())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written, letters = fonts.chosen(text)
        assert written == text and set(letters.values()) == {str(path)}
        assert same(drawn_in_ink(text), truth(text, path))


def fonttools():
    return pytest.importorskip("fontTools.ttLib")


def test_pillows_own_font_is_known_to_have_what_it_has():
    own = fonttools().TTFont(BytesIO(ImageFont.load_default(20).font_bytes))
    cmap = own.getBestCmap()
    letters = [chr(code) for code in (*range(33, 0x180), 0x20AC, 0x2013, 0x2026, 0x4F60) if chr(code).isprintable()]
    assert [fonts.has(None, letter) for letter in letters] == [ord(letter) in cmap for letter in letters]
    assert fonts.chosen("cat 7%")[1]["c"] is None


@pytest.fixture
def chinese(tmp_path, monkeypatch):
    """A font that has two Chinese letters, a square and a triangle, among the fonts of the system under its usual name."""
    builder = pytest.importorskip("fontTools.fontBuilder").FontBuilder(1000, isTTF=True)
    pen_of = pytest.importorskip("fontTools.pens.ttGlyphPen").TTGlyphPen
    names = [".notdef", "square", "triangle"]
    corners = ([(400, 0), (400, 100), (500, 100)], [(100, 0), (100, 800), (900, 800), (900, 0)], [(100, 0), (500, 800), (900, 0)])
    shapes = {}
    for name, points in zip(names, corners):
        pen = pen_of(None)
        pen.moveTo(points[0])
        for point in points[1:]:
            pen.lineTo(point)
        pen.closePath()
        shapes[name] = pen.glyph()
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({0x4F60: "square", 0x597D: "triangle"})
    builder.setupGlyf(shapes)
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 100)))
    builder.setupHorizontalHeader(ascent=900, descent=-200)
    builder.setupNameTable({"familyName": "Two", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    path = tmp_path / "NotoSansCJK-Regular.ttc"
    builder.save(path)
    real = ImageFont.truetype
    monkeypatch.setattr(
        fonts.ImageFont, "truetype", lambda name, *size, **how: real(str(path) if name == path.name else name, *size, **how)
    )
    for remembered in (fonts.found, fonts.opened, fonts.has):
        remembered.cache_clear()
    yield path
    for remembered in (fonts.found, fonts.opened, fonts.has):
        remembered.cache_clear()


def test_chinese_is_drawn_in_a_font_of_the_system_also_among_other_letters(chinese):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(drawn_in_ink("\u4f60\u597d"), truth("\u4f60\u597d", chinese))
        assert same(drawn_in_ink("\u597d\u597d"), truth("\u597d\u597d", chinese))
        assert not same(drawn_in_ink("\u597d\u597d"), truth("\u4f60\u4f60", chinese))
        written, letters = fonts.chosen("cat \u4f60")
        assert written == "cat \u4f60" and letters["c"] is None and letters["\u4f60"] == str(chinese)
        together = [piece for piece, _ in fonts.pieces(written, letters, 20)]
        assert "".join(together) == written and together[-1] == "\u4f60"


def test_letters_that_no_font_has_are_said_and_spelt_otherwise(monkeypatch):
    monkeypatch.setattr(fonts, "files", lambda: iter([None]))
    with pytest.warns(mi.InputWarning, match="no font on this machine has \u00fc \u4f60: install one"):
        written, _ = fonts.chosen("gr\u00fcn \u4f60 gr\u00fcn\u4f60")
    assert written == "grun ? grun?"
    with pytest.warns(mi.InputWarning):
        drawn = draw_labels(torch.full((100, 200, 3), 0.9), torch.ones(1, 100, 200), ["\u00fc"])
    assert ink(drawn).any()


@pytest.mark.parametrize("text", ["", " ", "\n", "\t\u3000"])
def test_blank_labels_are_not_written(text):
    drawn = draw_labels(torch.full((40, 60, 3), 0.9), torch.ones(1, 40, 60), [text])
    assert not ink(drawn).any()


@pytest.mark.parametrize("text", ["a\0b", "caf\udce9", "a\u200db", "e\u0301", "a\nb", "\u202eabc", "\ufe0f", "\u0301"])
def test_odd_letters_do_not_stop_a_label(text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mi.InputWarning)
        assert draw_labels(torch.full((40, 60, 3), 0.9), torch.ones(1, 40, 60), [text]).shape == (40, 60, 3)


def test_an_accent_of_its_own_is_the_letter_with_it():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mi.InputWarning)
        assert fonts.chosen("e\u0301") == fonts.chosen("\u00e9")
