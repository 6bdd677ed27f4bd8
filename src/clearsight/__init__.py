"""clearsight trains, explains and ships vision models on PyTorch.

Importing it is cheap: each name below is loaded when it is first used, PyTorch with the first that needs it.

    import clearsight as cs

    run = cs.train("cells", "data.root=PATH")
    run.evaluate("test")
    run.predict("photos/", out="out/")
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clearsight.api import (
        Run,
        check_data,
        demo,
        evaluate,
        explain_assignment,
        export,
        fit_anchors,
        load,
        predict,
        profile,
        receptive_field,
        train,
    )
    from clearsight.data.convert import convert
    from clearsight.data.dataset import Dataset
    from clearsight.data.read import read_dataset
    from clearsight.deploy.fuse import FuseReport, fuse
    from clearsight.deploy.prediction import Prediction
    from clearsight.deploy.predictor import Predictor
    from clearsight.deploy.treat import apply, diagnose, replay
    from clearsight.doctor.diagnosis import Diagnosis
    from clearsight.errors import ClearsightError, ConfigError, DataError, NotFound
    from clearsight.measure.profile import Profile
    from clearsight.metrics.scores import Scores
    from clearsight.models import create_model, list_models
    from clearsight.recipe.resolve import load_recipe, recipe_names
    from clearsight.recipe.schema import Recipe
    from clearsight.recipe.write import recipe_schema, recipe_to_yaml
    from clearsight.train.checkup import check
    from clearsight.types import Classification, Finding, Instances

__version__ = "0.1.0"

__all__ = [
    "Classification",
    "ClearsightError",
    "ConfigError",
    "DataError",
    "Dataset",
    "Diagnosis",
    "Finding",
    "FuseReport",
    "Instances",
    "NotFound",
    "Prediction",
    "Predictor",
    "Profile",
    "Recipe",
    "Run",
    "Scores",
    "__version__",
    "apply",
    "check",
    "check_data",
    "convert",
    "create_model",
    "demo",
    "diagnose",
    "evaluate",
    "explain_assignment",
    "export",
    "fit_anchors",
    "fuse",
    "list_models",
    "load",
    "load_recipe",
    "predict",
    "profile",
    "read_dataset",
    "receptive_field",
    "recipe_names",
    "recipe_schema",
    "recipe_to_yaml",
    "replay",
    "train",
]

_FROM = {
    "Classification": "types",
    "ClearsightError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "Dataset": "data.dataset",
    "Diagnosis": "doctor.diagnosis",
    "Finding": "types",
    "FuseReport": "deploy.fuse",
    "Instances": "types",
    "NotFound": "errors",
    "Prediction": "deploy.prediction",
    "Predictor": "deploy.predictor",
    "Profile": "measure.profile",
    "Recipe": "recipe.schema",
    "Run": "api",
    "Scores": "metrics.scores",
    "apply": "deploy.treat",
    "check": "train.checkup",
    "check_data": "api",
    "convert": "data.convert",
    "create_model": "models",
    "demo": "api",
    "diagnose": "deploy.treat",
    "evaluate": "api",
    "explain_assignment": "api",
    "export": "api",
    "fit_anchors": "api",
    "fuse": "deploy.fuse",
    "list_models": "models",
    "load": "api",
    "load_recipe": "recipe.resolve",
    "predict": "api",
    "profile": "api",
    "read_dataset": "data.read",
    "receptive_field": "api",
    "recipe_names": "recipe.resolve",
    "recipe_schema": "recipe.write",
    "recipe_to_yaml": "recipe.write",
    "replay": "deploy.treat",
    "train": "api",
}


class _Face(ModuleType):
    """The module itself; `train` stays the verb when the subpackage of that name is imported.

    The import system binds a subpackage to its parent, which would put the module `clearsight.train` where users call
    a function. `from clearsight.train import loop` works all the same.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _FROM and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


def __getattr__(name: str) -> object:
    if name not in _FROM:
        raise AttributeError(f"module 'clearsight' has no attribute {name!r}")
    value = getattr(import_module(f"clearsight.{_FROM[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Face
