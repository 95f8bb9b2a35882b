import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from zoo.errors import DeclarationError, OutputExistsError, OutputPermissionError, SavedModelError

pytestmark = pytest.mark.usefixtures("toys")


def trained(**options: object) -> zoo.TaskModel:
    """A model whose every tensor differs from a fresh one's."""
    model = zoo.get("toy/net", weights=False).adapt(3, labels=["ant", "bee", "cat"], **options)
    with torch.no_grad():
        for tensor in (*model.parameters(), *(buffer for buffer in model.buffers() if buffer.is_floating_point())):
            tensor.add_(torch.rand_like(tensor))
    return model.eval()


@pytest.mark.parametrize("options", [{}, {"head": "mlp", "hidden": 16}, {"pool": "max"}, {"in_chans": 1}, {"task": "multi-label"}])
def test_a_loaded_model_gives_equal_logits(tmp_path: Path, options: dict[str, object]) -> None:
    model = trained(**options)
    loaded = zoo.load(model.save(tmp_path / "saved"))
    x = torch.randn(4, *model.inputs.shape)
    assert torch.equal(loaded(x), model(x))
    assert (loaded.labels, loaded.task, loaded.inputs) == (model.labels, model.task, model.inputs)
    assert loaded.groups.names == model.groups.names
    assert not loaded.training


def test_a_saved_model_is_a_backbone_again(tmp_path: Path) -> None:
    model = trained()
    backbone = zoo.get(model.save(tmp_path / "my flowers"))
    assert backbone.spec.name == "saved/my-flowers"
    assert backbone.spec.base == "toy/net"
    assert backbone.groups.names == model.groups.names
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(backbone.features(x), model.backbone(x))
    again = backbone.adapt(2).eval()
    loaded = zoo.load(again.save(tmp_path / "second"))
    assert torch.equal(loaded(x), again(x))


def test_config_json_says_what_the_field_expects(tmp_path: Path) -> None:
    told = json.loads((trained().save(tmp_path / "saved") / "config.json").read_text())
    assert told["base_model"] == "toy/net"
    assert told["id2label"] == {"0": "ant", "1": "bee", "2": "cat"}
    assert told["label2id"]["cat"] == 2
    assert told["zoo"]["layer_groups"] == ["stem", "stage.0", "stage.1"]
    assert told["zoo"]["versions"]["torch"] == version("torch")
    card = (tmp_path / "saved" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: zoo\nbase_model: toy/net\n")


def test_classes_without_names_are_counted_and_stay_without(tmp_path: Path) -> None:
    path = zoo.get("toy/net", weights=False).adapt(3).save(tmp_path / "saved")
    config = json.loads((path / "config.json").read_text())
    assert config["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
    assert config["label2id"] == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    assert zoo.load(path).labels is None


def test_a_folder_of_another_library_is_told_from_a_saved_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(LookupError, match=r"another library.*zoo-hf"):
        zoo.get(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "zoo": {}}))
    with pytest.raises(SavedModelError):
        zoo.get(tmp_path)


def test_an_existing_folder_is_not_overwritten_unasked(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        trained().save(tmp_path)
    trained().save(tmp_path, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    zoo.load(tmp_path)


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "saved").write_text("mine")
    with pytest.raises(OutputExistsError, match="is a file"):
        trained().save(tmp_path / "saved", overwrite=True)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)  # tests may run as root, who may write anywhere
    with pytest.raises(OutputPermissionError, match="saved"):
        trained().save(tmp_path / "saved")


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    folder = trained().save(tmp_path / "saved")
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-3] ^= 255
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(SavedModelError, match="sha256"):
        zoo.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(SavedModelError, match="incomplete"):
        zoo.load(folder)


def test_faults_of_a_config_are_told_at_once(tmp_path: Path) -> None:
    folder = trained().save(tmp_path / "saved")
    told = json.loads((folder / "config.json").read_text())
    told["task"] = "segmentation"
    told["num_classes"] = 0
    del told["zoo"]["head"]
    (folder / "config.json").write_text(json.dumps(told))
    with pytest.raises(SavedModelError) as caught:
        zoo.load(folder)
    for fact in ("task", "num_classes", "zoo.head"):
        assert fact in str(caught.value)


def test_a_config_cannot_name_code(tmp_path: Path) -> None:
    folder = trained().save(tmp_path / "saved")
    told = json.loads((folder / "config.json").read_text())
    told["zoo"]["backbone"] = "os:system"
    (folder / "config.json").write_text(json.dumps(told))
    with pytest.raises(SavedModelError, match="os:system"):
        zoo.load(folder)


def test_a_saved_model_is_as_readable_as_the_files_beside_it(tmp_path: Path) -> None:
    folder = trained().save(tmp_path / "saved")
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


def test_an_unfinished_run_is_told_from_no_model(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(SavedModelError, match="not finished"):
        zoo.load(tmp_path)


def failing_home(model: zoo.TaskModel) -> str:
    raise KeyError("classifier")


def test_a_home_that_fails_does_not_cost_the_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = trained()
    model.spec = model.spec.replace(home="tests.test_saved:failing_home")
    loaded = zoo.load(model.save(tmp_path / "saved"))
    assert "opens in zoo only, and not in the library of its backbone: tests.test_saved: " in caplog.text
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(loaded(x), model(x))


def test_changed_layer_groups_are_refused(tmp_path: Path) -> None:
    folder = trained().save(tmp_path / "saved")
    told = json.loads((folder / "config.json").read_text())
    told["zoo"]["layer_groups"] = ["stem", "rest"]
    (folder / "config.json").write_text(json.dumps(told))
    with pytest.raises(SavedModelError, match=r"stem, rest.*stage\.1"):
        zoo.load(folder)


def test_a_folder_that_is_no_saved_model_is_told_with_the_nearest(tmp_path: Path) -> None:
    trained().save(tmp_path / "flowers")
    with pytest.raises(SavedModelError, match=r"did you mean '.*flowers'"):
        zoo.load(tmp_path / "flower")


def changed_config(folder: Path, **fields: Any) -> None:
    """Set fields of config.json by their dotted names, with ``__`` for dots."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for name, value in fields.items():
        *outer, last = name.split("__")
        table = config
        for part in outer:
            table = table[part]
        table[last] = value
    path.write_text(json.dumps(config))


DAMAGES: dict[str, tuple[dict[str, Any], str]] = {
    "a gap in the labels": ({"id2label": {"0": "a", "2": "c"}}, "id2label lacks the key '1' and has the key '2'"),
    "too few labels": ({"id2label": {"0": "a"}}, "id2label lacks the key '1'"),
    "a label twice": ({"id2label": {"0": "a", "1": "a"}}, "id2label names 'a' twice"),
    "very many classes": ({"num_classes": 10**9}, "num_classes: Input should be less than or equal to"),
    "an unknown option of the head": ({"zoo__head_options": {"foo": 1}}, r"zoo\.head_options=\{'foo': 1\} build no head 'linear'"),
    "an option of another type": ({"zoo__head_options": {"dropout": "x"}}, r"zoo\.head_options="),
    "a newer format": ({"zoo__format": 2}, "was written by a newer zoo; update it"),
    "a text as mean": ({"zoo__inputs__mean": "abc"}, "mean is 'abc'; give a list with a finite number per channel"),
    "a huge input": ({"zoo__inputs__size": [10**9, 10**9]}, "at most 65535 pixels"),
    "very many channels": ({"zoo__options": {"in_chans": 10**12}}, "in_chans is 1000000000000; an input has 1 to 65535"),
    "another mean": ({"zoo__inputs__mean": [0.1, 0.2, 0.3]}, "was changed after it was saved"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_config_is_an_error_that_names_the_field(damage: str, tmp_path: Path) -> None:
    fields, words = DAMAGES[damage]
    folder = zoo.get("toy/net", weights=False).adapt(2, labels=["a", "b"]).save(tmp_path / "m")
    changed_config(folder, **fields)
    with pytest.raises((SavedModelError, DeclarationError), match=words):
        zoo.load(folder)


@pytest.mark.parametrize(
    ("key", "value"), [("image_mean", [0.485, 0.456, 0.406]), ("resample", 0), ("num_channels", 1), ("size", {"height": 8, "width": 8})]
)
def test_a_preprocessing_that_other_libraries_read_and_ours_must_be_the_same(key: str, value: Any, tmp_path: Path) -> None:
    folder = zoo.get("toy/net", weights=False).adapt(2, labels=["a", "b"]).save(tmp_path / "m")
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value, "a key of another library": 1}))
    with pytest.raises(SavedModelError, match=rf"prepare inputs differently: {key} \("):
        zoo.load(folder)
    path.write_text("{")
    with pytest.raises(SavedModelError, match="cannot be read"):
        zoo.load(folder)
    path.unlink()
    zoo.load(folder)


def test_the_size_that_an_earlier_version_wrote_for_other_libraries_is_no_contradiction(tmp_path: Path) -> None:
    folder = zoo.get("toy/net", weights=False).adapt(2, labels=["a", "b"]).save(tmp_path / "m")
    path = folder / "preprocessor_config.json"
    told = json.loads(path.read_text())
    (height, width) = zoo.load(folder).inputs.size
    before = {key: value for key, value in told.items() if key not in ("image_processor_type", "do_resize", "do_center_crop", "crop_size")}
    path.write_text(json.dumps(before | {"size": {"height": height, "width": width}}))
    zoo.load(folder)
    path.write_text(json.dumps(before | {"size": {"height": height, "width": width + 1}}))
    with pytest.raises(SavedModelError, match="prepare inputs differently: size"):
        zoo.load(folder)


def test_a_model_of_a_version_without_the_digest_of_fields_opens(tmp_path: Path) -> None:
    folder = zoo.get("toy/net", weights=False).adapt(2).save(tmp_path / "m")
    changed_config(folder, zoo__fields_sha256="", zoo__inputs__mean=[0.1, 0.2, 0.3])
    assert zoo.load(folder).inputs.mean == (0.1, 0.2, 0.3)  # type: ignore[union-attr]  # an image
    zoo.get(folder).adapt(3)
