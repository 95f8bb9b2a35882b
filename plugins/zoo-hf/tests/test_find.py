"""From a name to a backbone: local folders, sentence-transformers' folders, repositories of the Hub; and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from tiny import CONFIGS, batch
from transformers import AutoModel
from zoo_hf.catalogue import table
from zoo_hf.tokenizer import SETTINGS, VOCABULARIES, open_tokenizer

import zoo

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OPTIONAL = (
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "preprocessor_config.json",
    "processor_config.json",
    *VOCABULARIES,
    *SETTINGS,
)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], None]:
    """Put folders into a cache of the Hub as repositories; there is no network."""
    cache = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(repo: str, path: Path) -> None:
        base = cache / f"models--{repo.replace('/', '--')}"
        shutil.copytree(path, base / "snapshots" / COMMIT)
        (base / "refs").mkdir()
        (base / "refs" / "main").write_text(COMMIT)
        for name in OPTIONAL:  # as it is left where the Hub was asked for them
            if not (path / name).exists():
                (base / ".no_exist" / COMMIT).mkdir(parents=True, exist_ok=True)
                (base / ".no_exist" / COMMIT / name).touch()

    return put


def sentence(path: Path, below: str = "", after: tuple[str, ...] = (), **pooling: Any) -> Path:
    """Make a folder one of sentence-transformers, with modules after the pooling."""
    modules = [{"idx": 0, "path": below, "type": "sentence_transformers.models.Transformer"}]
    modules += [{"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
    modules += [{"idx": idx, "path": f"{idx}_{kind}", "type": f"sentence_transformers.models.{kind}"} for idx, kind in enumerate(after, 2)]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (path / below / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 24}))
    return path


def test_a_licence_without_a_value_is_unknown(folder: Callable[..., Path]) -> None:
    path = folder("bert", auto=AutoModel)
    (path / "README.md").write_text("---\nlicense:\nlanguage: en\n---\n")
    assert zoo.get(path).spec.license == "unknown"


def test_a_local_folder_is_a_backbone(folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder("bert", auto=AutoModel)
    (path / "README.md").write_text("---\nlanguage: en\nlicense: Apache-2.0\n---\n# Tiny\n")
    spec = zoo.get(path).spec
    assert spec.name == "hf/local/tiny-bert"
    assert spec.base == "hf/bert"
    assert spec.license == "apache-2.0"
    assert isinstance(spec.inputs, zoo.Text)
    assert spec.inputs.max_length == 40
    monkeypatch.chdir(path.parent)
    assert zoo.get(path.name).spec.weights == spec.weights
    assert zoo.get(f"./{path.name}").spec.name == spec.name


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where anything is asked of the Hub."""
    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(f"socket.{name}", lambda *_, **__: pytest.fail("the network was asked"))


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("bert-base-uncased", "google-bert/bert-base-uncased"),
        ("roberta-base", "FacebookAI/roberta-base"),
        ("all-minilm-l6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
    ],
)
def test_a_listed_repository_is_found_without_its_owner(name: str, listed: str) -> None:
    assert zoo.get(f"hf/{name}").spec == zoo.get(f"hf/{listed}").spec


def test_no_two_listed_repositories_differ_in_their_owner_only() -> None:
    assert len({full.partition("/")[2].lower() for full in table()}) == len(table())


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ["bert-base-uncasd", "bert-base-german-cased@main"])
def test_a_name_without_owner_that_is_nearly_a_listed_one_is_told_at_once(name: str) -> None:
    with pytest.raises(zoo.ZooError, match=r"did you mean 'hf/google-bert/bert-base-\w+'") as caught:
        zoo.get(f"hf/{name}")
    assert f"'hf/OWNER/{name.partition('@')[0]}'" in str(caught.value)


def test_a_listed_repository_without_its_owner_is_taken_at_a_revision(
    folder: Callable[..., Path], hub: Callable[[str, Path], None]
) -> None:
    hub("google-bert/bert-base-uncased", folder("bert", auto=AutoModel))
    spec = zoo.get(f"hf/bert-base-uncased@{COMMIT}").spec
    assert spec.name == f"hf/google-bert/bert-base-uncased@{COMMIT}"
    assert spec.weights
    assert (spec.weights.repo, spec.weights.revision) == ("google-bert/bert-base-uncased", COMMIT)


def test_positions_after_the_padding_index_are_fewer(folder: Callable[..., Path]) -> None:
    inputs = zoo.get(folder("roberta"), weights=False).spec.inputs
    assert isinstance(inputs, zoo.Text)
    assert inputs.max_length == 38


@pytest.mark.parametrize(
    ("pooling", "pool"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "avg"),
        ({"pooling_mode_cls_token": True}, "token"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode": "mean"}, "avg"),
    ],
)
def test_the_pooling_of_sentence_transformers_becomes_the_default(pooling: dict[str, Any], pool: str, folder: Callable[..., Path]) -> None:
    backbone = zoo.get(sentence(folder("bert", auto=AutoModel), **pooling))
    assert (backbone.spec.features.layout, backbone.spec.features.pool) == ("BND", pool)
    assert "pooler" not in backbone.groups.names
    assert isinstance(backbone.spec.inputs, zoo.Text)
    assert backbone.spec.inputs.max_length == 24


def test_a_published_normalization_is_kept_and_saved(folder: Callable[..., Path], tmp_path: Path) -> None:
    path = sentence(folder("bert", auto=AutoModel, tokenizer=True), after=("Normalize",), pooling_mode_mean_tokens=True)
    model = zoo.get(path).adapt(2)
    texts = ["good film", "a bad film"]
    told = model.embed(texts)
    assert np.allclose(np.linalg.norm(told, axis=1), 1, atol=1e-6)
    raw = zoo.get(path).adapt(2, normalize=False)
    assert np.allclose(raw.embed(texts) / np.linalg.norm(raw.embed(texts), axis=1, keepdims=True), told, atol=1e-6)
    raw.save(tmp_path / "raw")
    model.save(tmp_path / "unit")
    assert np.array_equal(zoo.load(tmp_path / "raw").embed(texts), raw.embed(texts))
    loaded = zoo.load(tmp_path / "unit")
    assert np.array_equal(loaded.embed(texts), told)
    assert np.array_equal(loaded.predict_proba(texts), model.predict_proba(texts))


def test_a_normalization_after_a_layer_that_is_not_taken_over_is_left_out(folder: Callable[..., Path]) -> None:
    path = sentence(folder("bert"), after=("Dense", "Normalize"), pooling_mode_mean_tokens=True)
    assert not zoo.get(path, weights=False).spec.features.normalize


def test_a_pooling_that_zoo_does_not_have_leaves_the_familys_own(folder: Callable[..., Path]) -> None:
    both = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}
    assert zoo.get(sentence(folder("bert"), **both), weights=False).spec.features.layout == "BD"


def test_the_prompts_of_sentence_transformers_and_the_positions_behind_its_limit_are_read(folder: Callable[..., Path]) -> None:
    path = sentence(folder("bert", auto=AutoModel, tokenizer=True), pooling_mode_mean_tokens=True)
    (path / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "good ", "document": ""}}))
    model = zoo.get(path).adapt(2)
    assert (model.inputs.max_length, model.inputs.max_positions, model.inputs.longest) == (24, 40, 40)  # type: ignore[union-attr]  # a text
    assert (model.embed(["film"], prompt_name="query") == model.embed(["good film"])).all()
    with pytest.raises(zoo.ZooError, match="has the prompts: query"):
        model.embed(["film"], prompt_name="document")


def test_the_older_layout_of_sentence_transformers_is_read(folder: Callable[..., Path]) -> None:
    inner = folder("bert", auto=AutoModel)
    outer = inner.parent / "outer"
    outer.mkdir()
    inner.rename(outer / "0_Transformer")
    backbone = zoo.get(sentence(outer, "0_Transformer", pooling_mode_mean_tokens=True))
    assert backbone.features(batch()).shape == (2, 12, 16)


def test_a_model_saved_from_a_folder_needs_the_folder_no_more(folder: Callable[..., Path], tmp_path: Path) -> None:
    path = sentence(folder("bert", auto=AutoModel, tokenizer=True), pooling_mode_mean_tokens=True)
    model = zoo.get(path).adapt(2, labels=["bad", "good"]).eval()
    texts = ["a very good film", "bad"]
    expected = model.predict_proba(texts)
    model.save(tmp_path / "saved")
    shutil.rmtree(path)
    loaded = zoo.load(tmp_path / "saved")
    with torch.no_grad():
        assert torch.equal(loaded(batch()), model(batch()))
    assert (loaded.predict_proba(texts) == expected).all()
    assert loaded.spec.name == "hf/local/tiny-bert"
    assert loaded.groups.names == model.groups.names
    loaded.save(tmp_path / "again")
    other = zoo.get(tmp_path / "again").adapt(3).save(tmp_path / "other")
    assert zoo.load(other).groups.names == model.groups.names


def test_an_image_model_saved_from_a_folder_needs_the_folder_no_more(folder: Callable[..., Path], tmp_path: Path) -> None:
    path, x = folder("dinov2", auto=AutoModel), torch.randn(2, 3, 42, 42)
    model = zoo.get(path).adapt(2).eval()
    model.save(tmp_path / "saved")
    shutil.rmtree(path)
    with torch.no_grad():
        assert torch.equal(zoo.load(tmp_path / "saved")(x), model(x))


def test_a_repository_of_the_hub_is_a_backbone(folder: Callable[..., Path], hub: Callable[[str, Path], None]) -> None:
    path = folder("distilbert", auto=AutoModel, tokenizer=True)
    hub("someone/tiny-distilbert", path)
    backbone = zoo.get("hf/someone/tiny-distilbert")
    assert backbone.spec.weights == zoo.Weights(repo="someone/tiny-distilbert", license="unknown")
    assert isinstance(backbone.spec.inputs, zoo.Text)
    assert backbone.spec.inputs.files == "someone/tiny-distilbert"
    assert torch.equal(backbone.features(batch()), zoo.get(path).features(batch()))
    pinned = zoo.get(f"hf/someone/tiny-distilbert@{COMMIT}")
    assert pinned.spec.weights is not None
    assert pinned.spec.weights.revision == COMMIT
    assert torch.equal(pinned.features(batch()), backbone.features(batch()))
    model = backbone.adapt(2, labels=["bad", "good"])
    assert set(model.predict(["a very good film"])) <= {"bad", "good"}


def test_a_model_saved_from_the_hub_needs_no_hub(folder: Callable[..., Path], hub: Callable[[str, Path], None], tmp_path: Path) -> None:
    hub("someone/tiny", folder("bert", auto=AutoModel, tokenizer=True))
    model = zoo.get("hf/someone/tiny").adapt(2).eval()
    model.save(tmp_path / "saved")
    assert "base_model: someone/tiny" in (tmp_path / "saved" / "README.md").read_text()
    shutil.rmtree(tmp_path / "cache")
    loaded = zoo.load(tmp_path / "saved")
    assert loaded.spec.name == "hf/someone/tiny"
    with torch.no_grad():
        assert torch.equal(loaded(batch()), model(batch()))


def test_a_repository_that_cannot_be_had_is_named(hub: Callable[[str, Path], None]) -> None:
    with pytest.raises(FileNotFoundError, match=r"someone/absent@main/config\.json"):
        zoo.get("hf/someone/absent")


def test_a_family_without_weights_can_be_had_by_its_name() -> None:
    backbone = zoo.get("hf/bert", weights=False, num_hidden_layers=1, vocab_size=50)
    assert backbone.groups.names == ("embeddings", "layer.0", "pooler")
    assert backbone.spec.features.dim == 768


def test_another_architecture_is_refused_with_the_list(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "brand-new"}))
    with pytest.raises(zoo.ZooError) as caught:
        zoo.get(tmp_path)
    assert all(fact in str(caught.value) for fact in ("'brand-new'", "write-a-plugin.md", "clip", "siglip", *CONFIGS))


@pytest.mark.parametrize(
    ("told", "native", "repo"),
    [
        ({"model_type": "new"}, "gte", "alibaba-nlp-community/gte-multilingual-base"),
        (
            {"model_type": "new", "auto_map": {"AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel"}},
            "gte",
            "alibaba-nlp-community/gte-multilingual-base",
        ),
        (
            {
                "model_type": "xlm-roberta",
                "auto_map": {"AutoModel": "jinaai/xlm-roberta-flash-implementation--modeling.LoRA"},
            },
            "jina_embeddings_v3",
            "jinaai/jina-embeddings-v3-hf",
        ),
    ],
)
def test_an_architecture_that_is_code_is_refused_with_a_repository_that_needs_none(
    told: dict[str, Any], native: str, repo: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**CONFIGS[native], **told}))
    with pytest.raises(zoo.ZooError, match=f"never run; transformers has it as '{native}'.*'hf/{repo}'"):
        zoo.get(tmp_path)


def test_code_beside_an_architecture_of_transformers_is_left_alone(tmp_path: Path) -> None:
    told = {"model_type": "gte", "auto_map": {"AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel"}}
    (tmp_path / "config.json").write_text(json.dumps({**CONFIGS["gte"], **told}))
    assert zoo.get(tmp_path, weights=False).spec.base == "hf/gte"


def test_damaged_pickled_weights_are_refused_when_they_are_needed(folder: Callable[..., Path]) -> None:
    path = folder("bert")
    (path / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    assert zoo.get(path, weights=False).groups.names
    with pytest.raises(zoo.ZooError, match=r"pytorch_model\.bin' is refused: torch cannot read it"):
        zoo.get(path).build()


@pytest.mark.parametrize("content", ["[1]", "{", '"text"'])
def test_a_configuration_that_is_none_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    (tmp_path / "modules.json").write_text("[]")
    with pytest.raises(zoo.ZooError, match=r"config\.json"):
        zoo.get(tmp_path)


def test_the_id_of_a_local_folder_is_explained() -> None:
    with pytest.raises(zoo.ZooError, match="path"):
        zoo.get("hf/local/tiny")


def test_a_folder_of_another_library_is_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    with pytest.raises(zoo.ZooError):
        zoo.get(tmp_path)
    from zoo_hf.find import find

    assert find(str(tmp_path)) is None
    assert find("timm/resnet18") is None


@pytest.mark.parametrize(
    ("processor", "size", "crop", "interpolation"),
    [
        ({}, (32, 32), 1.0, "bilinear"),
        ({"size": {"height": 48, "width": 40}, "resample": 3}, (48, 40), 1.0, "bicubic"),
        ({"size": 48, "resample": 0}, (48, 48), 1.0, "nearest"),
        (
            {"size": {"shortest_edge": 64}, "do_center_crop": True, "crop_size": {"height": 48, "width": 48}, "resample": 1},
            (48, 48),
            0.75,
            "lanczos",
        ),
    ],
)
def test_the_preparation_of_images_is_read(
    processor: dict[str, Any], size: tuple[int, int], crop: float, interpolation: str, folder: Callable[..., Path]
) -> None:
    path = folder("vit")
    (path / "preprocessor_config.json").write_text(json.dumps({**processor, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}))
    inputs = zoo.get(path, weights=False).spec.inputs
    values = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    assert inputs == zoo.Image(size=size, crop=crop, interpolation=interpolation, squash="do_center_crop" not in processor, **values)


def test_images_that_are_not_normalised_stay_as_they_are(folder: Callable[..., Path]) -> None:
    path = folder("vit")
    (path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    inputs = zoo.get(path, weights=False).spec.inputs
    assert isinstance(inputs, zoo.Image)
    assert (inputs.mean, inputs.std) == ((0.0,) * 3, (1.0,) * 3)


def test_images_of_another_number_of_channels_are_declared_as_such(folder: Callable[..., Path]) -> None:
    backbone = zoo.get(folder("vit", auto=AutoModel, num_channels=1))
    assert isinstance(backbone.spec.inputs, zoo.Image)
    assert backbone.spec.inputs.channels == 1
    assert backbone.features(torch.randn(2, *backbone.spec.inputs.shape)).shape[0] == 2


@pytest.mark.parametrize("optional", ["modules.json", "preprocessor_config.json"])
def test_a_cache_that_does_not_know_whether_a_file_exists_is_not_guessed_from(
    optional: str, folder: Callable[..., Path], hub: Callable[[str, Path], None], tmp_path: Path
) -> None:
    hub("someone/tiny", folder("vit", auto=AutoModel))
    assert zoo.get("hf/someone/tiny").spec.modality == "image"
    (tmp_path / "cache" / "models--someone--tiny" / ".no_exist" / COMMIT / optional).unlink()
    with pytest.raises(FileNotFoundError, match=f"someone/tiny@main/{optional}"):
        zoo.get("hf/someone/tiny")


@pytest.mark.parametrize("below", ["../other", "{absolute}", "link"])
def test_a_folder_does_not_lead_to_another(below: str, folder: Callable[..., Path], tmp_path: Path) -> None:
    other = folder("bert", auto=AutoModel).rename(tmp_path / "other")
    path = tmp_path / "hostile"
    path.mkdir()
    (path / "link").symlink_to(other)
    below = below.format(absolute=other)
    (path / "modules.json").write_text(json.dumps([{"path": below, "type": "sentence_transformers.models.Transformer"}]))
    with pytest.raises(zoo.ZooError, match="leads out of the folder"):
        zoo.get(path)


def test_a_snapshot_of_a_cache_is_a_folder_although_its_files_are_links(folder: Callable[..., Path], tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    folder("bert", auto=AutoModel).rename(blobs)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(Path("../../blobs", blob.name))
    assert zoo.get(snapshot).spec.weights is not None


def test_an_absolute_path_is_a_folder_and_never_a_repository(tmp_path: Path) -> None:
    with pytest.raises(zoo.ZooError, match="no tokenizer's vocabulary"):
        open_tokenizer(str(tmp_path / "gone"))
    with pytest.raises(zoo.ZooError, match="no tokenizer's vocabulary"):
        open_tokenizer(str(tmp_path / "gone@main"))


def test_a_folder_that_is_saved_into_again_opens_with_its_new_tokenizer(folder: Callable[..., Path], tmp_path: Path) -> None:
    one = folder("bert", auto=AutoModel, tokenizer=True)
    first = zoo.get(one).adapt(2).save(tmp_path / "saved")
    texts = ["a very good film"]
    before = zoo.load(first).predict_proba(texts)
    two = tmp_path / "two"
    shutil.copytree(one, two)
    from tokenizers import Tokenizer, models, pre_tokenizers

    other = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "film": 4}, unk_token="[UNK]"))
    other.pre_tokenizer = pre_tokenizers.Whitespace()
    other.save(str(two / "tokenizer.json"))
    zoo.get(two).adapt(2).save(tmp_path / "saved", overwrite=True)
    after = zoo.load(tmp_path / "saved").predict_proba(texts)
    shutil.copytree(tmp_path / "saved", tmp_path / "never opened before")
    assert (after == zoo.load(tmp_path / "never opened before").predict_proba(texts)).all()
    assert (after != before).any()


@pytest.mark.parametrize("form", ["whole", "before torch 1.6", "shards"])
def test_a_folder_with_pickled_weights_gives_them(
    form: str, folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    path = folder("bert")
    state = zoo.get(path, weights=False).build().state_dict()
    state = {name: torch.rand_like(value) if value.is_floating_point() else value for name, value in state.items()}
    if form == "shards":
        names = list(state)
        parts = {f"pytorch_model-0000{n}-of-00002.bin": names[n - 1 :: 2] for n in (1, 2)}
        for name, part in parts.items():
            torch.save({key: state[key] for key in part}, path / name)
        table = {key: name for name, part in parts.items() for key in part}
        (path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": table}))
    else:
        torch.save(state, path / "pytorch_model.bin", _use_new_zipfile_serialization=form == "whole")
    found = zoo.get(path).build().state_dict()
    assert all(torch.equal(found[name], value) for name, value in state.items())


@pytest.mark.parametrize("name", ["tf_model.h5", "flax_model.msgpack", "weights.safetensors", "pytorch_model-00001-of-00002.bin", ""])
def test_a_folder_without_weights_that_are_read_is_an_error_that_lists_its_files(name: str, folder: Callable[..., Path]) -> None:
    path = folder("bert")
    if name:
        (path / name).write_bytes(b"x")
    with pytest.raises(zoo.ZooError, match=rf"the folder has: .*{name or 'config.json'}.*weights=False"):
        zoo.get(path).build()
