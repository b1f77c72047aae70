"""Every error code that the code declares is named in a test, or stands in a list that may only shrink."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tools.coverage.check import ceiling_of, committed_versions, lines_of

ROOT = Path(__file__).resolve().parents[2]
LIST = Path("tests/contract/untested-errors.txt")
DECLARED = re.compile(r'ErrorSpec\(\s*"([a-z0-9_.]+)"')


def texts(*patterns: str) -> Iterator[str]:
    """The Python files of these places, as text."""
    for pattern in patterns:
        for path in sorted(ROOT.glob(pattern)):
            yield path.read_text(encoding="utf-8")


def problems(declared: set[str], tested: str, listed: str, earlier: list[str]) -> list[str]:
    """What is wrong with a list, given the declared codes, the tests as one text, and the list's committed versions."""
    codes = lines_of(listed)
    untested = {code for code in declared if f'"{code}"' not in tested}
    found = [f"{code} is named in no test" for code in sorted(untested - set(codes))]
    found += [f"{code} is tested: take it off {LIST}" for code in codes if code in declared - untested]
    found += [f"{code} is declared nowhere: take it off {LIST}" for code in codes if code not in declared]
    if ceiling_of(listed) != len(codes):
        found.append(f"{LIST} has {len(codes)} codes; its ceiling must say so")
    for text in earlier:
        found += [f"{code} came onto {LIST}, which may only shrink" for code in codes if code not in lines_of(text)]
    return list(dict.fromkeys(found))


def test_every_declared_error_is_named_in_a_test() -> None:
    declared = {
        code for text in texts("services/*/src/**/*.py", "libs/*/src/**/*.py") for code in DECLARED.findall(text)
    }
    assert len(declared) > 100
    tested = "\n".join(
        texts("services/*/tests/**/*.py", "libs/*/tests/**/*.py", "gateway/**/tests/**/*.py", "tests/**/*.py")
    )
    listed = (ROOT / LIST).read_text(encoding="utf-8")
    wrong = problems(declared, tested, listed, committed_versions(ROOT, LIST))
    assert not wrong, "\n".join(wrong)


def test_what_is_untested_stale_or_new_on_the_list_is_found() -> None:
    listed = "# ceiling: 1\na.one\n"
    assert problems({"a.one", "a.two"}, '"a.two"', listed, [listed]) == []
    assert problems({"a.one", "a.two"}, "", listed, []) == ["a.two is named in no test"]
    assert problems({"a.one"}, '"a.one"', listed, []) == [f"a.one is tested: take it off {LIST}"]
    assert problems(set(), "", listed, []) == [f"a.one is declared nowhere: take it off {LIST}"]
    assert "ceiling" in problems({"a.one"}, "", "a.one\n", [])[0]
    assert "may only shrink" in problems({"a.one"}, "", listed, ["# ceiling: 1\na.other\n"])[0]
