"""One family of transformers as declared: its layer groups, its heads, its names in published files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Groups = Mapping[str, "str | Sequence[str]"]

# Names in published files -> names in the module, as regular expressions; tried in order where a name is not the module's.
NORM = ((r"\.gamma$", ".weight"), (r"\.beta$", ".bias"))


@dataclass(frozen=True, kw_only=True)
class Home:
    """A head of the home library that a head of ours can be.

    Attributes:
        head: ``linear``, ``mlp`` or ``tokens``.
        keys: Our prefixes of the head's tensors -> theirs.
        pool: Pooling that goes with it; ``pooler`` is the backbone's own.
        activation: Of the hidden layer of ``mlp``; a word in capitals names the field of the configuration that tells it.
        options: Further options of our head.
        config: Fields of the configuration that make the home library's classifier this one.
    """

    head: str
    keys: Mapping[str, str]
    pool: str = ""
    activation: str = ""
    options: Mapping[str, object] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)


LINEAR = {"head.linear": "classifier"}
HIDDEN = {"head.hidden": "classifier.dense", "head.linear": "classifier.out_proj"}
TOKENS = Home(head="tokens", keys=LINEAR)
POOLED = Home(head="linear", keys=LINEAR, pool="pooler")


@dataclass(frozen=True, kw_only=True)
class Family:
    """One ``model_type`` of transformers.

    Attributes:
        layers: Layer groups, or ``"module:function"`` that computes them from a built model.
        prefix: Where the backbone stands inside models with a head; empty means where its class says, in ``base_model_prefix``.
        reads: ``text`` or ``image``.
        auto: Class of transformers that knows the backbone's class.
        kind: The backbone's class, where no such class knows it.
        inputs: ``"module:function"`` that maps a configuration and a batch of texts to the arguments of the backbone's forward,
            where it takes others than the batch's.
        early: Parameter-free modules that run before the layers; registered first so that they belong to the first group.
        pooler: ``default`` where the backbone's own pooling is the one to use, ``optional`` where it exists and few published files
            fill it, ``always`` where its output cannot be had without, empty where none is offered.
        keeps_pooler: Whether it stays in the model where it is not used, as in the home library's classifiers of this family.
        pool: Pooling of the tokens where the own one is not used.
        class_token: Whether the first token of a text stands for the whole text.
        width: Field of the configuration that tells the width.
        default_width: Width where the configuration does not tell it.
        length: Field of the configuration that tells the number of positions.
        positions: Number of positions where the configuration does not tell it.
        offset: Whether positions are counted from after the padding index, so that fewer tokens fit than there are positions.
        names: Rules from names in published files to names in the module.
        sequence: The home library's classifier of whole inputs, where it can be a head of ours.
        tokens: Its classifier of tokens, likewise.
        processor: Class of transformers that prepares the family's images, without the ``ImageProcessor`` at its end, such as ``ViT``;
            where a repository does not name it, its defaults fill what preprocessor_config.json leaves out.
        mean: Mean and standard deviation per channel of the images that the family expects by default.
        std: See ``mean``.
        resample: Interpolation of the resize, likewise.
        crop: Share of the resized image that the centre crop keeps, likewise.
        uncropped: Pixels from which on both edges are resized and nothing is cropped; 0 where there is no such size.
        fixed: Options of the configuration that a backbone always has.
        preset: Options that it has, whatever the configuration tells, unless it is asked for others.
        defaults: Options where the configuration does not tell them, and the home library has no default.
        layout: Order of the axes of images' features, where the own pooling is not used.
        class_tokens: Leading tokens of an image that are not patches, without registers.
        registers: Number of register tokens where the configuration does not tell it.
        pooler_field: Field of the configuration that tells whether the own pooling exists.
        interpolates: Whether the forward must be told to interpolate the position embeddings for images of another size.
        composite: ``model_type`` of the models of images and texts that hold a backbone of this family below ``vision_config`` or, one of
            texts, below ``text_config``.
        projected: Field of a composite's configuration with the width of the space that both parts are projected into; empty where their
            own pooled outputs are embeddings already.
        patches: Number of patches where the configuration does not tell it and images are given as patches; 0 for pixels.
        published: Rules from names of modules to names in published files, for saving.
    """

    layers: Groups | str
    prefix: str = ""
    reads: str = "text"
    auto: str = "AutoModel"
    kind: str = ""
    inputs: str = ""
    early: tuple[str, ...] = ()
    pooler: str = ""
    keeps_pooler: bool = False
    pool: str = "token"
    class_token: bool = True
    width: str = "hidden_size"
    default_width: int = 768
    length: str = "max_position_embeddings"
    positions: int = 512
    offset: bool = False
    names: tuple[tuple[str, str], ...] = NORM
    sequence: Home | None = None
    tokens: Home | None = TOKENS
    processor: str = ""
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    resample: str = "bilinear"
    crop: float = 1.0
    uncropped: int = 0
    fixed: Mapping[str, object] = field(default_factory=dict)
    preset: Mapping[str, object] = field(default_factory=dict)
    defaults: Mapping[str, object] = field(default_factory=dict)
    layout: str = "BND"
    class_tokens: int = 1
    registers: int = 0
    pooler_field: str = ""
    interpolates: bool = False
    composite: str = ""
    projected: str = ""
    patches: int = 0
    published: tuple[tuple[str, str], ...] = ()
