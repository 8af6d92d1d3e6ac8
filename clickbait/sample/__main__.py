"""`python -m clickbait.sample`: synthetic headlines as CSV."""

import sys

from clickbait import cli
from clickbait.sample import SYNTHETIC_NOTICE, generate, write_rows


def main() -> int:
    """The command line: CSV on standard output, the notice on standard error; the exit code is
    `clickbait.cli.Code`.
    """
    return cli.exit_code(_run)


def _run() -> None:
    parser = cli.Parser(prog="python -m clickbait.sample", description=SYNTHETIC_NOTICE)
    parser.add_argument("--count", type=int, default=4000, help="how many headlines (default: 4000)")
    parser.add_argument("--seed", type=int, default=0, help="other seeds, other headlines (default: 0)")
    args = parser.parse_args()
    rows = generate(args.count, args.seed)
    print(SYNTHETIC_NOTICE, file=sys.stderr)
    write_rows(rows, sys.stdout)


if __name__ == "__main__":
    sys.exit(main())
