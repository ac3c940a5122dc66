# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which part of what a console writes is the answer, however it arrives."""

from __future__ import annotations

import random

import pytest
from ansible_collections.haku.river.plugins.module_utils.attach import STDERR, STDOUT
from ansible_collections.haku.river.plugins.module_utils.console_text import RUN, Cleaner, Transcript

LOG = "12:00 Updated: World> -> Other> 1\n"


def heard(text: str, prompt: str = "World>", pieces: int = 1) -> Transcript:
    """A transcript of this text, arriving in so many pieces, cut anywhere."""
    data = text.encode()
    cuts = sorted(random.Random(pieces).sample(range(1, len(data)), pieces - 1)) if pieces > 1 else []
    transcript = Transcript(prompt)
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        transcript.add(STDOUT, data[begin:end])
    return transcript


@pytest.mark.parametrize("pieces", range(1, 30))
@pytest.mark.parametrize(
    ("shows_typing", "text"),
    [
        (False, "a -> b\n> c\nWorld>World>World>"),
        (True, "ask\r\n\r\n\r\na -> b\r\n> c\r\nWorld>World>World>"),
        (True, "ask\r\na -> b\r\n> c\r\nWorld>\r\nWorld>\r\nWorld>"),
        (True, f"{LOG}ask\r\na -> b\r\n> c\r\nWorld>\r\nWorld>\r\nWorld>{LOG}{LOG}"),
        (
            True,
            "\x1b[2mask\x1b[0m\r\n\x1b]0;x\x07a -> b\r\n\x1b[1;31m> c\x1b[39;49m\x1b[K\r\nWorld>World>World>\x1b[K",
        ),
    ],
)
def test_an_answer_is_the_same_whether_typing_is_seen_or_not_and_however_it_arrives(
    text: str, shows_typing: bool, pieces: int
) -> None:
    transcript = heard(text, pieces=pieces)
    assert transcript.at_rest
    assert transcript.prompts == RUN
    assert transcript.answer("ask", RUN, shows_typing) == "a -> b\n> c"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\nWorld>",
        "a\nWorld>World>",
        "World>\nWorld>\nWorld>\n",
        "World>a\nWorld>b\nWorld>",
        f"a\nWorld>{LOG}World>World>",
        "a\nWorld>World>World>World>\n",
    ],
)
def test_without_the_prompt_in_a_row_it_is_not_at_rest(text: str) -> None:
    assert not heard(text).at_rest


def test_lines_like_the_prompt_belong_to_the_answer() -> None:
    transcript = heard("World>\nWorld>a\nWorld>\nend\nWorld>World>World>")
    assert transcript.answer("ask", RUN, shows_typing=False) == "World>\nWorld>a\nWorld>\nend"


def test_log_lines_between_prompts_do_not_belong_to_the_answer() -> None:
    transcript = heard(f"a\nWorld>{LOG}World>World>World>World>World>")
    assert transcript.at_rest
    assert transcript.answer("ask", 2 * RUN, shows_typing=False) == "a"


def test_an_answer_need_not_end_with_a_newline() -> None:
    assert heard("OKWorld>World>World>").answer("ask", RUN, shows_typing=False) == "OK"


@pytest.mark.parametrize(
    "prompt", ["Other>", "My World>", "orld>", "a -> b>", "TWC Debug - do not join>", "> ", ">>> ", "$ "]
)
@pytest.mark.parametrize("between", ["", "\r\n"])
def test_another_prompt_is_recognised(prompt: str, between: str) -> None:
    transcript = heard("renamed\r\n" + between.join([prompt] * RUN))
    assert not transcript.at_rest
    assert transcript.other_prompt() == prompt
    transcript.expect(prompt)
    assert transcript.at_rest
    assert transcript.other_prompt() is None
    assert transcript.answer("name", RUN, shows_typing=False) == "renamed"


@pytest.mark.parametrize("prompt", [">", ">>", ">>>"])
def test_a_prompt_of_one_mark_again_and_again_is_not_another_one(prompt: str) -> None:
    transcript = heard("a > b\n" + prompt * RUN, prompt)
    assert transcript.other_prompt() is None
    assert (transcript.at_rest, transcript.prompts) == (True, RUN)
    assert transcript.answer("ask", RUN, shows_typing=False) == "a > b"
    assert heard(prompt * RUN, prompt="").other_prompt() == ">"


@pytest.mark.parametrize("prompt", ["x>x>", "x>x>x>"])
@pytest.mark.parametrize("size", [1, 3, 7, 2000])
def test_a_prompt_that_repeats_itself_is_counted_however_it_arrives(prompt: str, size: int) -> None:
    transcript = Transcript(prompt)
    data = b"ax>x>x>\n" + prompt.encode() * 300
    for at in range(0, len(data), size):
        transcript.add(STDOUT, data[at : at + size])
    assert transcript.prompts == 300
    assert transcript.at_rest
    assert transcript.other_prompt() is None
    transcript.expect_mark()
    assert transcript.prompt == "x>"


@pytest.mark.parametrize(
    ("prompt", "reply", "is_prompt", "is_marks"),
    [
        ("World>", "World>", True, True),
        ("World>", f"World>{LOG}", True, False),
        ("World>", "World>\n", False, True),
        ("World>", "World>World>", False, True),
        ("World>", f"{LOG}World>", False, False),
        (">>", ">>", True, True),
        (">>", ">>>", False, True),
        (">>", ">\n", False, True),
        ("x>x>", "x>x>x>", False, True),
        ("x>x>", "", False, False),
    ],
)
def test_a_line_more_brings_one_prompt_and_nothing_else(
    prompt: str, reply: str, is_prompt: bool, is_marks: bool
) -> None:
    transcript = Transcript(prompt)
    assert (transcript.is_prompt(reply), transcript.is_marks(reply)) == (is_prompt, is_marks)


@pytest.mark.parametrize("length", [100, 134, 190, 200])
@pytest.mark.parametrize("pieces", [1, 2, 5, 50, 250])
def test_a_long_prompt_is_recognised_however_it_is_cut(length: int, pieces: int) -> None:
    prompt = ("W" + "abcdefghij" * 20)[: length - 1] + ">"
    assert heard("\r\n" + "\r\n".join([prompt] * RUN), pieces=pieces).other_prompt() == prompt


def test_another_prompt_is_recognised_behind_a_log_line() -> None:
    assert heard(f"renamed\nOther>Other>Other>{LOG}{LOG}").other_prompt() == "Other>"


@pytest.mark.parametrize(
    "text", ["Saving...", "======", "### Title\n", "-> -> ->\n", "a>\na>\na>\n", ">>> quoted\n", "aaa"]
)
def test_not_everything_that_is_repeated_is_a_prompt(text: str) -> None:
    assert heard(text).other_prompt() is None


def test_a_command_in_its_own_answer_stays_where_typing_is_not_seen() -> None:
    text = "ask\nb\nWorld>World>World>"
    assert heard(text).answer("ask", RUN, shows_typing=False) == "ask\nb"


def test_only_the_first_such_line_is_what_was_typed() -> None:
    text = "ask\r\nyou said:\r\nask\r\nWorld>World>World>"
    assert heard(text).answer("ask", RUN, shows_typing=True) == "you said:\nask"


@pytest.mark.parametrize("before", ["", LOG, "World>", "12:00 "])
@pytest.mark.parametrize("shown", ["say {}a b", "say a{} b", "s{}ay a b", "say a {}b"])
@pytest.mark.parametrize("logs", [LOG, LOG + LOG])
def test_log_lines_may_part_what_was_typed(before: str, shown: str, logs: str) -> None:
    transcript = heard(before + shown.format(logs) + "\n\n\n> a\nb\nWorld>World>World>")
    assert transcript.answer(shown.format(""), RUN, shows_typing=True) == "> a\nb"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("ask\n\n\na\n\nb\nWorld>World>World>", "a\n\nb"),
        ("ask\na\n\nb\nWorld>\nWorld>\nWorld>", "a\n\nb"),
        ("ask\na\n\nb\n\n\nWorld>World>World>", "a\n\nb"),
        (f"ask\na\n\nb\nWorld>{LOG}\nWorld>\nWorld>", "a\n\nb"),
        ("ask\na\n\n\nb\nWorld>World>World>", "a\nb"),
        ("ask\n\na\n\nb\nWorld>World>World>", "a\nb"),
        ("ask\na\n\n\nb\nWorld>\nWorld>World>", "a\n\nb"),
    ],
)
def test_empty_lines_of_the_answer_stay_and_those_that_were_typed_go(text: str, answer: str) -> None:
    transcript = heard(text)
    assert transcript.answer("ask", RUN, shows_typing=True) == answer


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\r\n\r\n\r\nWorld>World>World>World>", True),
        ("\r\nWorld>\r\nWorld>\r\nWorld>", True),
        ("World>World>World>", False),
        (f"World>{LOG}World>World>World>{LOG}", False),
    ],
)
def test_whether_typing_is_seen_is_found_out(text: str, shown: bool) -> None:
    assert heard(text).shows_typing() is shown


def test_characters_and_escapes_that_are_cut_in_two_are_put_together() -> None:
    cleaner = Cleaner()
    data = "grün \x1b[1;32m✓\x1b[0m\x1b]0;a title\x1b\\ end".encode()
    assert "".join(cleaner.clean(data[at : at + 1]) for at in range(len(data))) == "grün ✓ end"
    assert Cleaner().clean(b"\xff\x00a\tb\x07") == "\ufffda\tb"


@pytest.mark.parametrize("begun", ["\x1b", "\x1b[", "\x1b]", "\x1bP", "\x1b_", "\x1b(", "\x1b]0;", "\x1bPq"])
@pytest.mark.parametrize("pieces", [1, 3, 10, 25])
def test_an_escape_that_is_never_finished_hides_nothing_behind_its_line(begun: str, pieces: int) -> None:
    transcript = heard(f"B{begun}\r\nID: U-1\nWorld>World>World>", pieces=pieces)
    assert transcript.at_rest
    name, *rest = transcript.answer("ask", RUN, shows_typing=False).split("\n")
    assert (name[0], rest) == ("B", ["ID: U-1"])
    assert "\x1b" not in name


def test_standard_error_does_not_cut_characters_of_standard_output() -> None:
    transcript = Transcript("World>")
    data = "ü".encode()
    transcript.add(STDOUT, data[:1])
    transcript.add(STDERR, b"log\n")
    transcript.add(STDOUT, data[1:])
    assert transcript.text == "log\nü"


def test_a_large_answer_takes_no_more_than_its_size() -> None:
    transcript = Transcript("World>")
    line = b"World> is not the prompt -> " + b"x" * 100 + b" >\n"
    for _number in range(3000):
        transcript.add(STDOUT, line * 10)
    transcript.add(STDOUT, b"World>World>World>")
    assert transcript.at_rest
    assert transcript.answer("ask", RUN, shows_typing=False).count("\n") == 29999
