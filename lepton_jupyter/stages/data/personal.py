"""Likely personal data, told by its form and check digits. Only a finding: nothing is removed or called anonymous."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import polars as pl

from lepton_jupyter.formats.records import Finding

SAMPLE = 500
SHARE = 0.3  # of the values that are there
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[A-Za-z]{2,}")
_IBAN = re.compile(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}")
_PHONE = re.compile(r"\+?\(?\d[\d ()/.-]{6,}\d")
_CARD = re.compile(r"\d{13,19}")
NAME_HINTS = (
    "first_name",
    "last_name",
    "surname",
    "full_name",
    "street",
    "address",
    "birth_date",
    "date_of_birth",
    "ssn",
    "passport",
)


def is_email(text: str) -> bool:
    """Whether a text is one e-mail address."""
    return _EMAIL.fullmatch(text) is not None


def is_iban(text: str) -> bool:
    """Whether a text is an IBAN whose check digits hold (ISO 13616: remainder 1 by 97)."""
    compact = text.replace(" ", "").upper()
    if not _IBAN.fullmatch(compact):
        return False
    return int("".join(str(int(sign, 36)) for sign in compact[4:] + compact[:4])) % 97 == 1


def is_card(text: str) -> bool:
    """Whether a text is a payment card's number whose check digit holds (ISO/IEC 7812, Luhn)."""
    digits = text.replace(" ", "").replace("-", "")
    if not _CARD.fullmatch(digits) or digits[0] not in "3456":
        return False
    doubled = [int(digit) for digit in digits]
    doubled[-2::-2] = [2 * digit - 9 * (digit > 4) for digit in doubled[-2::-2]]
    return sum(doubled) % 10 == 0


def is_phone(text: str) -> bool:
    """Whether a text reads as a telephone number: 8 to 15 digits with a plus, a bracket, or two signs between them."""
    n_digits = sum(sign.isdigit() for sign in text)
    if not _PHONE.fullmatch(text) or not 8 <= n_digits <= 15:
        return False
    if re.fullmatch(
        r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}|\d+\.\d+|\d{1,3}(\.\d{1,3}){3}", text
    ):  # dates, decimals, addresses
        return False
    return text[0] in "+(" or len(re.findall(r"[ /()-]+", text)) >= 2


KINDS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("e-mail addresses", is_email),
    ("bank accounts (IBAN)", is_iban),
    ("payment cards", is_card),
    ("telephone numbers", is_phone),
)


def personal(frame: pl.DataFrame, *, skip: tuple[str, ...] = ()) -> Iterator[Finding]:
    """Yield a finding for each column whose values, or whose name, look personal."""
    for name in frame.columns:
        series = frame[name]
        if name in skip or not (series.dtype == pl.String or series.dtype.is_integer()):
            continue
        values = [
            str(value).strip() for value in series.drop_nulls().unique(maintain_order=True).head(SAMPLE).to_list()
        ]
        kind = _kind(values)
        if kind is None and series.dtype == pl.String and values and name.lower().replace(" ", "_") in NAME_HINTS:
            kind = "names, addresses or the like"
        if kind is not None:
            yield Finding(
                check="personal",
                column=name,
                text=f"{name} looks like personal data ({kind}). --personal {name} keeps it out of endpoints' logs, "
                f"--ignore {name} out of the model; the dataset still holds it.",
            )


def _kind(values: list[str]) -> str | None:
    for kind, is_such in KINDS:
        if values and sum(map(is_such, values)) >= SHARE * len(values):
            return kind
    return None
