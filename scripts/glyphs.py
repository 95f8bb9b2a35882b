"""Letters rendered from the fonts that matplotlib ships, and the distortions that make them look drawn and scanned.

The source domain of GlyphNet. It holds letters only: no digit is ever a training picture. Digits are rendered once, to
find the letters that look like one (O, l, the Cyrillic З …) and leave those out, so that a transfer to digits is a
transfer to new classes.

Fonts: DejaVu (Bitstream Vera licence) and STIX (SIL Open Font License) for training, Computer Modern (BaKoMa licence) held
out for the test. All three allow free use; only pictures of their glyphs are used.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

SIDE = 64  # pixels of a rendered glyph in the bank
GLYPH = 56  # the longer side of a glyph inside it
PICTURE = 32  # pixels of a training picture

DIGITS = "0123456789"
LATIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
RANGES = {
    "latin": (0x41, 0x7A),
    "greek": (0x391, 0x3C9),
    "cyrillic": (0x402, 0x45F),
    "armenian": (0x531, 0x586),
    "hebrew": (0x5D0, 0x5EA),
    "lao": (0xE81, 0xEB3),
    "georgian": (0x10A0, 0x10F0),
    "canadian": (0x1401, 0x1676),
    "lisu": (0xA4D0, 0xA4F7),
    "tifinagh": (0x2D30, 0x2D65),
}
TRAIN_FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique",
    "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic",
    "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique",
    "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta",
)  # fmt: skip
TEST_FONTS = ("cmr10", "cmb10", "cmss10", "cmti10", "cmtt10")


@dataclass(frozen=True)
class Bank:
    """Rendered glyphs.

    Attributes:
        glyphs: uint8 ``(count, 64, 64)``, ink 255 on 0.
        labels: int64 ``(count,)``, an index into ``classes``.
        classes: The letters of each class, look-alikes together (``"Cc"``).
    """

    glyphs: Tensor
    labels: Tensor
    classes: tuple[str, ...]


def letters() -> list[str]:
    """Return the letters of the scripts above: upper case, lower case and caseless, but no accented or dotted composite."""
    found = [chr(code) for first, last in RANGES.values() for code in range(first, last + 1)]
    plain = [c for c in found if unicodedata.category(c) in ("Lu", "Ll", "Lo") and not unicodedata.decomposition(c)]
    return [c for c in plain if re.fullmatch(r"(?!CANADIAN).*|CANADIAN SYLLABICS [A-Z]{0,2}[AEIO]", unicodedata.name(c))]


def font_file(name: str) -> Path:
    """Return the path of a font that matplotlib ships."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"


def charmap(name: str) -> dict[str, str]:
    """Map each plain letter to the characters of the font that draw it: itself and its mathematical variants (script, sans …)."""
    from matplotlib.ft2font import FT2Font

    drawn: dict[str, str] = {}
    for character in map(chr, FT2Font(str(font_file(name))).get_charmap()):
        variant = unicodedata.decomposition(character).startswith("<font>")
        plain = unicodedata.normalize("NFKC", character) if variant else character
        if "FRAKTUR" not in unicodedata.name(character, "") and len(plain) == 1:
            drawn[plain] = drawn.get(plain, "") + character
    return drawn


def render(character: str, font: ImageFont.FreeTypeFont) -> np.ndarray | None:
    """Draw one character, its ink scaled to 56 pixels on the longer side and centred in 64; None where it has no ink."""
    left, top, right, bottom = font.getbbox(character)
    canvas = Image.new("L", (max(1, math.ceil(right - left)) + 4, max(1, math.ceil(bottom - top)) + 4))
    ImageDraw.Draw(canvas).text((2 - left, 2 - top), character, fill=255, font=font)
    box = canvas.getbbox()
    if box is None:
        return None
    ink = canvas.crop(box)
    scale = GLYPH / max(ink.size)
    ink = ink.resize((max(1, round(ink.width * scale)), max(1, round(ink.height * scale))), Image.Resampling.BILINEAR)
    picture = Image.new("L", (SIDE, SIDE))
    picture.paste(ink, ((SIDE - ink.width) // 2, (SIDE - ink.height) // 2))
    return np.asarray(picture)


def render_all(characters: list[str], font_name: str, variants: bool = True) -> dict[str, list[np.ndarray]]:
    """Draw every character that the font has, with its variants; ``{character: glyphs}``."""
    font, drawn = ImageFont.truetype(str(font_file(font_name)), 72), charmap(font_name)
    glyphs = {c: [render(v, font) for v in (drawn.get(c, "") if variants else c if c in drawn else "")] for c in characters}
    return {c: [g for g in found if g is not None] for c, found in glyphs.items() if any(g is not None for g in found)}


def similarity(glyphs: dict[str, list[np.ndarray]], *, stretch: bool = False) -> Tensor:
    """Return the cosine similarities ``(count, count)`` of the blurred first pictures; ``stretch`` scales the ink to a square first."""
    pictures = torch.from_numpy(np.stack([_to_square(found[0]) if stretch else found[0] for found in glyphs.values()])).float()
    flat = functional.avg_pool2d(pictures[:, None], 7, stride=2, padding=3).flatten(1)
    flat = functional.normalize(flat - flat.mean(dim=1, keepdim=True), dim=1)
    return flat @ flat.T


def _to_square(glyph: np.ndarray) -> np.ndarray:
    """Stretch the ink to the whole picture: a narrow O is a zero."""
    picture = Image.fromarray(glyph)
    return np.asarray(picture.crop(picture.getbbox()).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def clusters(alike: Tensor) -> list[list[int]]:
    """Return the connected components of a symmetric boolean relation ``(count, count)``."""
    count = len(alike)
    component = torch.arange(count)
    while not torch.equal(component, spread := torch.where(alike, component, count).amin(dim=1)):
        component = spread  # the least index spreads along the edges until nothing changes
    return [torch.nonzero(component == first).flatten().tolist() for first in component.unique()]


def choose_classes(merge: float = 0.93, leave_out: float = 0.85) -> tuple[str, ...]:
    """Return the classes of the source domain.

    Args:
        merge: Letters more similar than this in DejaVu Sans become one class.
        leave_out: Classes with a letter more similar than this to a digit, in DejaVu Sans or Serif, are left out.

    Returns:
        The letters of each class.
    """
    characters = [*DIGITS, *letters()]
    taken = set(DIGITS)
    for font in ("DejaVuSerif", "DejaVuSans"):  # Sans last: it has all the scripts, and its similarities are used below
        glyphs = render_all(characters, font, variants=False)
        drawn, alike = list(glyphs), similarity(glyphs)
        to_digit = torch.maximum(alike, similarity(glyphs, stretch=True))[: len(DIGITS)].amax(dim=0)
        taken |= {c for c, near in zip(drawn, (to_digit > leave_out).tolist(), strict=True) if near}
    groups = ["".join(drawn[i] for i in group) for group in clusters(alike > merge)]
    return tuple(group for group in groups if not set(group) & taken)


def build_bank(fonts: tuple[str, ...], classes: tuple[str, ...], characters: str = "") -> Bank:
    """Render the letters of ``classes`` (or those of them in ``characters``) from each font."""
    label_of = {c: label for label, members in enumerate(classes) for c in members if not characters or c in characters}
    found = [(glyph, label_of[c]) for font in fonts for c, drawn in render_all(list(label_of), font).items() for glyph in drawn]
    glyphs, labels = zip(*found, strict=True)
    return Bank(torch.from_numpy(np.stack(glyphs)), torch.tensor(labels), classes)


def distort(glyphs: Tensor, generator: torch.Generator, *, invert: float = 0.2) -> Tensor:
    """Turn rendered glyphs into pictures that look drawn by hand and scanned at low resolution.

    Stroke width, slant, rotation, scale, elastic bends (Simard et al. 2003), a coarse scan of 8 to 24 pixels scaled up again,
    contrast, noise and, in a share ``invert``, dark ink on bright paper.

    Args:
        glyphs: uint8 ``(batch, 64, 64)``.
        generator: Source of all randomness.
        invert: Probability of dark ink.

    Returns:
        float32 ``(batch, 1, 32, 32)`` in [0, 1].
    """
    x = _stroke(glyphs.float().div(255)[:, None], generator)
    x = functional.grid_sample(x, _warp(len(x), generator), align_corners=False)
    x = _scan(x, generator).clamp(0, 1)
    x = x / x.amax(dim=(2, 3), keepdim=True).clamp(min=0.2)  # thinned strokes would vanish in a coarse scan
    gamma, gain, floor, noise = _uniform(len(x), generator, (0.6, 1.6), (0.5, 1.0), (0.0, 0.3), (0.0, 0.12))
    x = floor * (1 - gain) + gain * x**gamma
    x = x + noise * torch.randn(x.shape, generator=generator)
    dark = torch.rand(len(x), 1, 1, 1, generator=generator) < invert
    return torch.where(dark, 1 - x, x).clamp(0, 1)


def _uniform(count: int, generator: torch.Generator, *bounds: tuple[float, float]) -> list[Tensor]:
    """Draw one ``(count, 1, 1, 1)`` tensor per pair of bounds."""
    return [low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator) for low, high in bounds]


def _stroke(x: Tensor, generator: torch.Generator) -> Tensor:
    """Thin or fatten the ink by up to 2 pixels of 64, blending two widths per picture."""
    radius, blend = int(torch.randint(1, 3, (), generator=generator)), torch.rand(len(x), 1, 1, 1, generator=generator)
    half = len(x) // 2  # the first half gets thinner, the second fatter
    thin = -functional.max_pool2d(-x[:half], 2 * radius + 1, stride=1, padding=radius)
    fat = functional.max_pool2d(x[half:], 2 * radius + 1, stride=1, padding=radius)
    return torch.lerp(x, torch.cat([thin, fat]), blend)


def _warp(count: int, generator: torch.Generator) -> Tensor:
    """Draw sampling grids ``(count, 32, 32, 2)``: affine maps with smooth bends added."""
    affine = _uniform(count, generator, (-0.3, 0.3), (-0.5, 0.5), (0.85, 1.35), (-0.35, 0.35), (-0.1, 0.1), (-0.1, 0.1))
    angle, slant, zoom, stretch, across, down = (value.flatten() for value in affine)
    (bend,) = _uniform(count, generator, (0.0, 0.12))
    wide, high = zoom * stretch.exp(), zoom * (-stretch).exp()
    rows = [wide * angle.cos(), wide * (slant - angle.sin()), across, high * angle.sin(), high * angle.cos(), down]
    grid = functional.affine_grid(torch.stack(rows, dim=1).view(count, 2, 3), [count, 1, PICTURE, PICTURE], align_corners=False)
    coarse = torch.randn(count, 2, 5, 5, generator=generator) * bend
    return grid + functional.interpolate(coarse, size=PICTURE, mode="bicubic", align_corners=True).permute(0, 2, 3, 1)


def _scan(x: Tensor, generator: torch.Generator) -> Tensor:
    """Scan at 8 to 24 pixels and scale up again, one size per eighth of the batch; the last eighth stays sharp."""
    parts = list(x.chunk(8))
    for index, side in enumerate((8, 8, 8, 10, 12, 16, 24)[: len(parts) - 1]):
        small = functional.interpolate(parts[index], size=side, mode="area")
        mode = ("bilinear", "bicubic")[int(torch.randint(2, (), generator=generator))]
        parts[index] = functional.interpolate(small, size=PICTURE, mode=mode, align_corners=False)
    return torch.cat(parts)
