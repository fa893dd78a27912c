"""What grants refuse as soon as they are made."""

import pytest

from wasmeval import HttpPolicy, HttpRule, InvalidArgument


def test_a_list_of_rules_is_kept_as_a_tuple() -> None:
    rule = HttpRule("api.example.com")
    assert HttpPolicy([rule]).rules == (rule,)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "rules", [["api.example.com"], HttpRule("api.example.com"), "api.example.com", 5, None]
)
def test_a_policy_wants_rules(rules: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^http\.rules: must be a sequence of HttpRule"):
        HttpPolicy(rules)  # type: ignore[arg-type]
