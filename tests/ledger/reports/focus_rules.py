"""The rules of FOCUS 1.2 for one row, from the text of the specification (specification/columns and /attributes of the
tag v1.2), and what a row breaks of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation

Row = Mapping[str, str]

NOT_NULL = (
    "BilledCost", "EffectiveCost", "ListCost", "ContractedCost", "BillingCurrency", "BillingAccountId",
    "BillingAccountName", "BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd",
    "ChargeCategory", "ChargeDescription", "ChargeFrequency", "InvoiceIssuerName", "ProviderName", "PublisherName",
    "ServiceCategory", "ServiceSubcategory", "ServiceName",
)  # fmt: skip
"""Columns that MUST NOT be null in any row, or (ChargeDescription) SHOULD NOT."""
PRESENT = (
    *NOT_NULL, "ChargeClass", "PricingQuantity", "PricingUnit", "CommitmentDiscountCategory", "CommitmentDiscountId",
    "CommitmentDiscountName", "CommitmentDiscountQuantity", "CommitmentDiscountStatus", "CommitmentDiscountType",
    "CommitmentDiscountUnit", "ConsumedQuantity", "ConsumedUnit", "ContractedUnitPrice", "ListUnitPrice",
    "PricingCategory", "ResourceId", "ResourceName", "ResourceType", "SkuId", "SkuMeter", "SkuPriceDetails",
    "SkuPriceId", "SubAccountId", "SubAccountName", "Tags", "InvoiceId", "RegionId", "RegionName",
)  # fmt: skip
"""Columns that MUST be present where the provider supports what they are about, as this one does."""
NUMBERS = (
    "BilledCost", "EffectiveCost", "ListCost", "ContractedCost", "ListUnitPrice", "ContractedUnitPrice",
    "PricingQuantity", "ConsumedQuantity", "CommitmentDiscountQuantity",
)  # fmt: skip
TIMES = ("BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd")
ALLOWED = {
    "ChargeCategory": {"Usage", "Purchase", "Tax", "Credit", "Adjustment"},
    "ChargeClass": {"", "Correction"},
    "ChargeFrequency": {"One-Time", "Recurring", "Usage-Based"},
    "CommitmentDiscountCategory": {"", "Spend", "Usage"},
    "CommitmentDiscountStatus": {"", "Used", "Unused"},
    "PricingCategory": {"", "Standard", "Dynamic", "Committed", "Other"},
    "ServiceCategory": {"AI and Machine Learning", "Other"},
    "ServiceSubcategory": {"Generative AI", "Other (Other)"},
}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_NUMBER = re.compile(r"-?\d+(\.\d+)?(E-?\d+)?")
_UNIT = re.compile(r"(\d+ )?[A-Z][A-Za-z]*s|[A-Z][A-Za-z]*-(Hours|Days|Seconds)|USD")
_TAG_KEY = re.compile(r"spillway/\w+")


def _number(row: Row, name: str) -> Decimal | None:
    try:
        return Decimal(row[name]) if row[name] else None
    except InvalidOperation:
        return None


def _usage_or_purchase(row: Row) -> bool:
    return row["ChargeCategory"] in ("Usage", "Purchase") and row["ChargeClass"] != "Correction"


def _needs(*names: str) -> Callable[[Row], bool]:
    return lambda row: all(row[name] for name in names)


def _both(name: str, other: str) -> Callable[[Row], bool]:
    return lambda row: bool(row[name]) == bool(row[other])


def _product(price: str, cost: str) -> Callable[[Row], bool]:
    def matches(row: Row) -> bool:
        unit_price, quantity = _number(row, price), _number(row, "PricingQuantity")
        if unit_price is None or quantity is None or row["ChargeClass"] == "Correction":
            return True
        return unit_price >= 0 and unit_price * quantity == _number(row, cost)

    return matches


def _flat_json(name: str) -> Callable[[Row], bool]:
    def is_flat(row: Row) -> bool:
        if not row[name]:
            return True
        values = json.loads(row[name])
        return isinstance(values, dict) and not any(isinstance(value, dict | list) for value in values.values())

    return is_flat


def _commitment_quantity(row: Row) -> bool:
    is_needed = bool(row["CommitmentDiscountId"]) and _usage_or_purchase(row)
    return bool(row["CommitmentDiscountQuantity"]) == is_needed


def _consumed(row: Row) -> bool:
    if row["ChargeCategory"] != "Usage" or row["CommitmentDiscountStatus"] == "Unused":
        return not row["ConsumedQuantity"]
    return bool(row["ConsumedQuantity"]) or row["ChargeClass"] == "Correction"


def _status(row: Row) -> bool:
    return bool(row["CommitmentDiscountStatus"]) == (
        bool(row["CommitmentDiscountId"]) and row["ChargeCategory"] == "Usage"
    )


def _covers(row: Row) -> bool:
    return row["BillingPeriodStart"] <= row["ChargePeriodStart"] < row["ChargePeriodEnd"] <= row["BillingPeriodEnd"]


RULES: dict[str, Callable[[Row], bool]] = {
    "not null": _needs(*NOT_NULL),
    "numbers": lambda row: all(not row[name] or _NUMBER.fullmatch(row[name]) for name in NUMBERS),
    "times": lambda row: all(_TIME.fullmatch(row[name]) for name in TIMES),
    "periods": _covers,
    "allowed values": lambda row: all(row[name] in values for name, values in ALLOWED.items()),
    "units": lambda row: all(
        not row[name] or _UNIT.fullmatch(row[name])
        for name in ("PricingUnit", "ConsumedUnit", "CommitmentDiscountUnit")
    ),
    "currency": lambda row: row["BillingCurrency"] == "USD",
    "purchases are not usage-based": lambda row: (
        row["ChargeCategory"] != "Purchase" or row["ChargeFrequency"] != "Usage-Based"
    ),
    "a purchase for later has no effective cost": lambda row: (
        row["ChargeCategory"] != "Purchase" or _number(row, "EffectiveCost") == 0
    ),
    "sku and prices": lambda row: (
        not _usage_or_purchase(row)
        or _needs("SkuId", "SkuPriceId", "SkuMeter", "ListUnitPrice", "ContractedUnitPrice", "PricingQuantity",
                  "PricingUnit", "PricingCategory")(row)
    ),
    "list cost": _product("ListUnitPrice", "ListCost"),
    "contracted cost": _product("ContractedUnitPrice", "ContractedCost"),
    "pricing unit": _both("PricingQuantity", "PricingUnit"),
    "sub account": _both("SubAccountId", "SubAccountName"),
    "resource": _both("ResourceId", "ResourceType"),
    "resource name": lambda row: not row["ResourceName"] or row["ResourceName"] != row["ResourceId"],
    "commitment category": _both("CommitmentDiscountId", "CommitmentDiscountCategory"),
    "commitment type": _both("CommitmentDiscountId", "CommitmentDiscountType"),
    "commitment name": _both("CommitmentDiscountId", "CommitmentDiscountName"),
    "commitment status": _status,
    "commitment quantity": _commitment_quantity,
    "commitment unit": _both("CommitmentDiscountQuantity", "CommitmentDiscountUnit"),
    "committed price": lambda row: (
        row["PricingCategory"] != "Committed" or (bool(row["CommitmentDiscountId"]) and _number(row, "BilledCost") == 0)
    ),
    "commitment bought or unused": lambda row: (
        not row["CommitmentDiscountId"]
        or row["CommitmentDiscountStatus"] == "Used"
        or row["ResourceId"] == row["CommitmentDiscountId"]
    ),
    "consumed": _consumed,
    "consumed unit": _both("ConsumedQuantity", "ConsumedUnit"),
    "tags": _flat_json("Tags"),
    "tag prefixes": lambda row: all(_TAG_KEY.fullmatch(key) for key in json.loads(row["Tags"] or "{}")),
    "price details": _flat_json("SkuPriceDetails"),
    "spaces": lambda row: all(value.strip() or not value for value in row.values()),
}  # fmt: skip


def broken(row: Row) -> list[str]:
    """Return the rules that a row breaks."""
    missing = [name for name in PRESENT if name not in row]
    return missing or [name for name, holds in RULES.items() if not holds(row)]
