"""Plots, Markdown and the README's table from the results of bench/run.py.

python bench/report.py bench/results/cpu.json --plot docs/figures --table bench/results/cpu.md
python bench/report.py --readme README.md bench/results/cpu.json           # write the README's table
python bench/report.py --readme README.md --check bench/results/cpu.json   # exit status 1 if it is out of date
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench import plots, results, tables  # noqa: E402

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def with_block(text: str, block: str) -> str:
    """``text`` with what stands between the marks replaced. Raises ``ValueError`` unless each occurs once, in order."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"there must be one {BEGIN} and, after it, one {END}")
    before, after = text[: text.index(BEGIN)], text[text.index(END) + len(END) :]
    return f"{before}{BEGIN}\n{block.strip()}\n{END}{after}"


def write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("results", type=Path, metavar="RESULTS.json")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="write the plots here")
    parser.add_argument("--table", type=Path, metavar="FILE.md", help="write the whole table here")
    parser.add_argument("--readme", type=Path, metavar="README.md", help=f"write its table, from {BEGIN} to {END}")
    parser.add_argument("--check", action="store_true", help="with --readme: only exit 1 if it is out of date")
    options = parser.parse_args(arguments)
    if options.check and options.readme is None:
        parser.error("--check needs --readme")
    try:
        found = results.load(options.results)
        if options.plot is not None:
            for path in plots.draw(found, options.plot):
                print(f"wrote {path}")
        if options.table is not None:
            write_whole(options.table, tables.markdown(found))
        if options.readme is not None:
            text = options.readme.read_text(encoding="utf-8")
            try:
                new = with_block(text, tables.readme_table(found))
            except ValueError as error:
                raise ValueError(f"{options.readme}: {error}") from error
            if options.check and new != text:
                message = f"{options.readme} does not show {options.results}: run bench/report.py without --check"
                print(message, file=sys.stderr)
                return 1
            if not options.check:
                write_whole(options.readme, new)
    except (ValueError, OSError) as error:
        print(f"bench/report.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
