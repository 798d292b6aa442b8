"""The receipt's first figures as headers of a unary answer."""

from __future__ import annotations

from metering.receipt import Receipt


def receipt_headers(receipt: Receipt) -> dict[str, str]:
    headers = {"x-wattgate-receipt": receipt.receipt_id, "x-wattgate-method": receipt.method.value}
    if receipt.energy_joules is not None:
        headers["x-wattgate-joules"] = f"{receipt.energy_joules.total:.6g}"
    if receipt.operational_grams is not None:
        headers["x-wattgate-grams"] = f"{receipt.operational_grams:.6g}"
    return headers
