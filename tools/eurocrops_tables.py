"""Write the shipped table of national crop codes from EuroCrops' country mappings.

    git clone https://github.com/maja601/EuroCrops
    python tools/eurocrops_tables.py EuroCrops

Only what decides is kept: table, code (or the name, where a row has no code) and HCAT3_code. The table is an adaptation
of EuroCrops under its licence, CC BY-SA 4.0 (exact_core/data/season/legends/README.md).
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from exact_core.data.season.legends import SHIPPED, national_codes, read_lines


def main(checkout: Path, out: Path) -> int:
    """Write the table of all country mappings of a checkout; returns the number of its codes."""
    rows = [
        (path.stem.lower(), code, meaning)
        for path in sorted((checkout / "csvs" / "country_mappings").glob("*.csv"), key=lambda path: path.stem.lower())
        for code, meaning, _ in national_codes(read_lines(path))
    ]
    with out.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("table", "original_code", "HCAT3_code"))
        table.writerows(rows)
    return len(rows)


if __name__ == "__main__":
    print(f"{main(Path(sys.argv[1]), SHIPPED / 'eurocrops.csv'):,} codes")
