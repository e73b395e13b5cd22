"""What pydantic finds wrong with a value, in words that say what it must be."""

import re
from typing import Any

NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"
NAME_RULE = "be letters, digits, _ . and -, and begin with a letter, digit or _, such as my-domain"

_A_NUMBER = "be a number"
_A_WHOLE_NUMBER = "be a whole number"
_A_MAPPING = "be a mapping of keys to values"
_TRUE_OR_FALSE = "be true or false"
_RULES = {
    "bool_parsing": _TRUE_OR_FALSE,
    "bool_type": _TRUE_OR_FALSE,
    "dict_type": _A_MAPPING,
    "finite_number": "be a finite number",
    "float_parsing": _A_NUMBER,
    "float_type": _A_NUMBER,
    "greater_than": "be above {gt:.12g}",
    "greater_than_equal": "be at least {ge:.12g}",
    "int_from_float": _A_WHOLE_NUMBER,
    "int_parsing": _A_WHOLE_NUMBER,
    "int_type": _A_WHOLE_NUMBER,
    "less_than": "be below {lt:.12g}",
    "less_than_equal": "be at most {le:.12g}",
    "list_type": "be a list",
    "literal_error": "be {expected}",
    "model_attributes_type": _A_MAPPING,
    "model_type": _A_MAPPING,
    "path_type": "be a path",
    "string_pattern_mismatch": "match {pattern}",
    "string_too_short": "have at least {min_length} character(s)",
    "string_type": "be a text; put it in quotes",
    "too_short": "hold at least {min_length}",
    "tuple_type": "be a list",
    "union_tag_invalid": "have {discriminator} of {expected_tags}",
    "union_tag_not_found": "have {discriminator}",
}


# What pydantic adds to a key of several types, to say of which of them it tells.
_TYPE = re.compile(r"constrained-\w+|literal\[.*\]|int|float")


def describe(fault: Any, whole: str = "") -> str:
    """`lora.r is 0, but must be at least 1`, of one of a ValidationError's; `whole` is what no key names."""
    first, *others = map(str, fault["loc"]) if fault["loc"] else [whole]
    key = ".".join([first, *(part for part in others if not _TYPE.fullmatch(part))])
    if fault["type"] == "extra_forbidden":
        return f"{key} is not a known key; remove it or mend its spelling"
    if fault["type"] == "missing":
        return f"{key} is missing; add it"
    if rule := _rule(fault["type"], fault.get("ctx", {})):
        return f"{key or 'it'} is {fault['input']!r}, but must {rule}"
    ours = fault["msg"].removeprefix("Value error, ")
    return f"{key} is {fault['input']!r}: {ours}" if key else ours


def _rule(kind: str, context: dict[str, Any]) -> str:
    """Empty where the message is a validator's own, or one that nobody has met yet."""
    if kind == "string_pattern_mismatch" and context["pattern"] == NAME:
        return NAME_RULE
    return _RULES.get(kind, "").format(**context)
