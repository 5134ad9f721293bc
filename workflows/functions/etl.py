"""What `etl` calls: plain functions, JSON in and out, easy to test without a server."""

from __future__ import annotations

from typing import Any


def by_id(customers: list[dict[str, Any]]) -> dict[str, str]:
    """Country by customer; customers without one are counted as `unknown`."""
    return {str(customer["id"]): customer.get("country") or "unknown" for customer in customers}


def revenue_by_country(orders: list[dict[str, Any]], countries: dict[str, str]) -> dict[str, float]:
    """Sum of the orders' amounts for each country, by name."""
    totals: dict[str, float] = {}
    for order in orders:
        country = countries.get(str(order["customer"]), "unknown")
        totals[country] = round(totals.get(country, 0.0) + float(order["amount"]), 2)
    return dict(sorted(totals.items()))
