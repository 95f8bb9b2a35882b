import json
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

import zoo
from zoo.errors import OutputExistsError, OutputPermissionError, SavedModelError

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
    assert "opens in zoo only" in caplog.text
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
    with pytest.raises(SavedModelError, match="did you mean 'flowers'"):
        zoo.load(tmp_path / "flower")
