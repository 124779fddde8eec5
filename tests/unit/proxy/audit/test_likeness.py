"""Which texts are compared with each other."""

import pytest

from filature.proxy.audit.likeness import LOOKED_AT, likeness

ENGLISH = "The worm spins its thread around itself, and nobody asks what for. "
FRENCH = "Le ver à soie file son cocon, et personne ne demande pourquoi il est là. "


def test_prose_is_alike_in_latin_letters() -> None:
    assert likeness(ENGLISH) == likeness(FRENCH) == likeness(ENGLISH * 100) == "a"


@pytest.mark.parametrize(
    "text",
    [
        "蚕は糸を吐き、繭を作る。" * 9,
        "누에는 실을 뽑아 고치를 짓는다. " * 9,
        "Шелкопряд прядёт свою нить. " * 9,
        "Ο μεταξοσκώληκας γνέθει. " * 9,
        "रेशम का कीड़ा धागा कातता है। " * 9,
        "หนอนไหมปั่นเส้นด้าย" * 9,
        "🐛🧵" * 40,
        "3141592653 5897932384 " * 9,
        "if x:\n            if y:\n                z()\n" * 9,
        "aGVsbG8gd29ybGQsIHRoaXMgaXMgYSBsb25nIHdvcmQ" * 9,
        "a b c d e f g h " * 9,
    ],
)
def test_others_are_not(text: str) -> None:
    assert likeness(text) != likeness(ENGLISH)


def test_each_script_is_alike_only_itself() -> None:
    scripts = ("蚕は糸を吐き", "누에는실을뽑", "Шелкопряд", "รเสหนอน", "रेशम का कीड़ा", "μεταξ")
    assert len({likeness(text * 9) for text in scripts}) == len(scripts)


@pytest.mark.parametrize("text", ["", " \n\t ", "\x00", "\ud800", "\udfff x"])
def test_any_text_is_like_something(text: str) -> None:
    assert likeness(text * 2) == likeness(text)


def test_the_beginning_is_looked_at() -> None:
    begin = (ENGLISH * 100)[:LOOKED_AT]
    assert likeness(begin + "蚕" * 100_000) == likeness(begin)
