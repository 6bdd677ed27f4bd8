import pytest

from clearsight.errors import ConfigError, NotFound
from clearsight.recipe.resolve import load_recipe, recipe_names


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------------ built in
@pytest.mark.parametrize("name", recipe_names())
def test_built_in_recipes_are_valid_and_described(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe_names()[name] == recipe.description != ""


def test_digits_builds_on_images():
    digits, images = load_recipe("digits"), load_recipe("images")
    assert digits.optimizer == images.optimizer
    assert digits.model.small_input  # pyright: ignore[reportAttributeAccessIssue]
    assert digits.augment.flip_horizontal == 0


@pytest.mark.parametrize(("name", "near"), [("cell", "cells"), ("retina-net", "retinanet"), ("Demo", "demo")])
def test_an_unknown_name_gives_the_nearest(name, near):
    with pytest.raises(ConfigError, match=f"there is no recipe '{name}'; did you mean '{near}'"):
        load_recipe(name)


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(ConfigError, match=f"built in: {', '.join(sorted(recipe_names()))}"):
        load_recipe("zzz")


@pytest.mark.parametrize("name", ["", "..", "a b"])
def test_names_cannot_leave_the_folder_of_recipes(name):
    with pytest.raises(ConfigError, match="there is no recipe"):
        load_recipe(name)


# ------------------------------------------------------------------------------------------------ overrides
def test_overrides_change_only_their_keys():
    recipe = load_recipe("cells", ["optimizer.lr=1e-4", "data.size=[64,96]", "trainer.clip_norm=null"])
    assert recipe.optimizer.lr == 1e-4
    assert recipe.data.size == (64, 96)
    assert recipe.trainer.clip_norm is None
    assert recipe.model == load_recipe("cells").model


def test_one_override_may_be_a_plain_text():
    assert load_recipe("cells", "trainer.seed=7").trainer.seed == 7


def test_another_model_resets_what_belonged_to_the_old_one():
    recipe = load_recipe("cells", ["model.name=retinanet"])
    assert recipe.model == load_recipe("retinanet").model


def test_an_assigner_without_a_name_is_of_the_models_kind():
    assert load_recipe("cells", ["model.assigner.candidates=5"]).model.assigner.name == "simota"  # pyright: ignore
    changed = load_recipe("retinanet", ["model.assigner.positive=0.6"]).model.assigner  # pyright: ignore
    assert (changed.name, changed.positive) == ("max_iou", 0.6)


def test_numbers_stand_for_texts_as_they_were_written():
    recipe = load_recipe("cells", ["data.classes=[007, 1e3, true]", "data.train=[2023, 2024]", "name=010"])
    assert recipe.data.classes == ("007", "1e3", "true")
    assert recipe.data.train == ("2023", "2024")
    assert recipe.name == "010"


@pytest.mark.parametrize("name", ["a/b", "..", "a\\b", ".", "a:b"])
def test_a_name_must_be_able_to_be_a_folder(name):
    with pytest.raises(ConfigError, match="expected a text that can be a folder's name"):
        load_recipe("cells", [f"name='{name}'"])


# ------------------------------------------------------------------------------------------------ files
def test_a_file_builds_on_a_built_in_recipe_and_is_named_like_itself(tmp_path):
    path = write(tmp_path, "mine.yaml", "base: cells\ntrainer:\n  minutes: 10\n")
    recipe = load_recipe(path)
    assert recipe.name == "mine"
    assert recipe.trainer.minutes == 10
    assert recipe.trainer.epochs is None
    assert recipe.data == load_recipe("cells").data


def test_files_build_on_files_relative_to_themselves(tmp_path):
    write(tmp_path, "shared/low.yaml", "base: cells\noptimizer: {lr: 0.5}\nloader: {batch_size: 3}\n")
    path = write(tmp_path, "a/top.yaml", "name: x\nbase: ../shared/low.yaml\noptimizer: {lr: 0.25}\n")
    recipe = load_recipe(str(path), ["loader.workers=0"])
    assert (recipe.name, recipe.optimizer.lr, recipe.loader.batch_size, recipe.loader.workers) == ("x", 0.25, 3, 0)


def test_a_base_may_be_the_folder_of_a_run(tmp_path):
    write(tmp_path, "runs/old/recipe.yaml", "base: cells\nname: old\noptimizer: {lr: 0.5}\n")
    path = write(tmp_path, "new.yaml", "base: ./runs/old\n")
    assert load_recipe(path).optimizer.lr == 0.5
    assert load_recipe(tmp_path / "runs" / "old").name == "old"


def test_paths_in_a_file_start_at_its_folder_and_those_of_overrides_at_the_current_one(tmp_path, monkeypatch):
    path = write(tmp_path, "a/mine.yaml", "base: cells\ndata: {root: ../photos}\nmodel: {weights: w.safetensors}\n")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    recipe = load_recipe(path)
    assert recipe.data.root == str(tmp_path / "photos")
    assert recipe.model.weights == str(tmp_path / "a" / "w.safetensors")
    assert load_recipe(path, ["data.root=photos"]).data.root == str(tmp_path / "here" / "photos")
    assert load_recipe(path, ["data.root=2024"]).data.root == str(tmp_path / "here" / "2024")


def test_home_and_addresses(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = load_recipe("cells", ["data.root=~/cells", "model.weights=https://example.org/w.safetensors"])
    assert recipe.data.root == str(tmp_path / "cells")
    assert recipe.model.weights == "https://example.org/w.safetensors"


def test_a_recipe_is_its_own_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("cells", ["data.root=x", "model.assigner.candidates=4"])
    assert load_recipe(recipe) == recipe
    assert load_recipe(recipe, ["trainer.epochs=2"]).trainer.epochs == 2


# ------------------------------------------------------------------------------------------------ mistakes in files
def test_a_typo_names_file_and_line(tmp_path):
    path = write(tmp_path, "mine.yaml", "base: cells\n\noptimizer:\n  lr: 1e-3\n  weigth_decay: 0.1\n")
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert str(caught.value) == (
        f"{path}:5: unknown key 'weigth_decay' in section 'optimizer'; did you mean 'optimizer.weight_decay'?"
    )


def test_a_value_out_of_range_names_file_and_line_and_what_is_allowed(tmp_path):
    path = write(tmp_path, "mine.yaml", "base: cells\noptimizer:\n  lr: -3\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml:3: optimizer\.lr: found -3, expected a number > 0 and ≤ 100"):
        load_recipe(path)


def test_a_mistake_in_a_base_names_the_base(tmp_path):
    low = write(tmp_path, "low.yaml", "base: cells\nloader:\n  batch_size: 0\n")
    path = write(tmp_path, "top.yaml", "base: low.yaml\n")
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{low}:3: loader.batch_size: found 0")


@pytest.mark.parametrize(("base", "chain"), [("a.yaml", "a.yaml → b.yaml → a.yaml"), ("b.yaml", "b.yaml → b.yaml")])
def test_bases_cannot_go_round(tmp_path, base, chain):
    write(tmp_path, "a.yaml", "base: b.yaml\n")
    write(tmp_path, "b.yaml", f"base: {base}\n")
    with pytest.raises(ConfigError, match="in a circle") as caught:
        load_recipe(tmp_path / "a.yaml")
    assert chain in str(caught.value).replace(f"{tmp_path}/", "")


@pytest.mark.parametrize(
    ("base", "error", "message"),
    [
        ("cell", ConfigError, r"top\.yaml:2: base: there is no recipe 'cell'; did you mean 'cells'"),
        ("lwo.yaml", NotFound, r"top\.yaml:2: base: .*there is no such recipe file; did you mean .*low\.yaml"),
        ("[cells]", ConfigError, r"top\.yaml:2: base: expected the name or file of a recipe, found \['cells'\]"),
    ],
)
def test_a_base_that_is_not_there(tmp_path, base, error, message):
    write(tmp_path, "low.yaml", "base: cells\n")
    path = write(tmp_path, "top.yaml", f"name: x\nbase: {base}\n")
    with pytest.raises(error, match=message):
        load_recipe(path)


def test_files_that_cannot_be_recipes(tmp_path):
    write(tmp_path, "mine.yaml", "base: cells\n")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    (tmp_path / "empty").mkdir()
    for source, error, message in (
        (tmp_path / "mien.yaml", NotFound, r"there is no such recipe file; did you mean .*mine\.yaml"),
        (tmp_path / "no" / "mine.yaml", NotFound, "the folder .* does not exist either"),
        (tmp_path / "empty", NotFound, "this folder has no recipe.yaml"),
        (tmp_path / "latin.yaml", ConfigError, "not a text in UTF-8"),
    ):
        with pytest.raises(error, match=message):
            load_recipe(source)


def test_a_name_that_is_also_a_folder_is_explained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "qqqq").mkdir()
    with pytest.raises(ConfigError, match=r"write \./qqqq"):
        load_recipe("qqqq")


def test_a_bare_file_must_say_everything(tmp_path):
    path = write(tmp_path, "mine.yaml", "task: detection\n")
    with pytest.raises(ConfigError, match="start with `base: NAME`") as caught:
        load_recipe(path)
    assert str(caught.value).splitlines()[0] == f"{path}: 3 mistakes"
