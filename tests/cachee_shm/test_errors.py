"""The tree of errors is what its module's docstring draws."""

import inspect
import pickle
import re

import pytest

from cachee_shm import errors

CLASSES = [value for value in vars(errors).values() if inspect.isclass(value)]


def drawn_parents() -> dict[str, str]:
    """Class name to parent's name, read off the drawing."""
    drawing = errors.__doc__.split("\n\n")[2]
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in drawing.splitlines():
        match = re.match(r"^    ((?:│   |    )*)([├└]── )?(\w+)", line)
        depth = len(match[1]) // 4 + bool(match[2])
        path[depth:] = [match[3]]
        parents[match[3]] = path[depth - 1] if depth else "Exception"
    return parents


def test_the_drawing_shows_every_class_under_its_parent():
    assert drawn_parents() == {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES}


def test_all_names_every_class_once():
    assert sorted(errors.__all__) == sorted(cls.__name__ for cls in CLASSES)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_says_in_its_docstring_what_it_means(cls):
    assert len(inspect.getdoc(cls)) > 60


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.ConfigError, ValueError),
        (errors.KeyTooLong, ValueError),
        (errors.InvalidKey, TypeError),
        (errors.InvalidTTL, ValueError),
        (errors.ValueTooLarge, ValueError),
        (errors.Unserializable, TypeError),
        (errors.FrameError, ValueError),
    ],
)
def test_mistakes_of_a_caller_are_also_the_built_in_kind(cls, builtin):
    assert issubclass(cls, builtin)


def test_lapped_names_what_was_lost_and_survives_a_pickle():
    lapped = pickle.loads(pickle.dumps(errors.Lapped(7, 9)))
    assert (lapped.lost_from, lapped.lost_to) == (7, 9)
    assert "7 to 9" in str(lapped)
