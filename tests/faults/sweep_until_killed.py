"""A sweep's driver, for a test that kills it: `tuning.sweep` as it is, for a configuration given as JSON.

python tests/faults/sweep_until_killed.py sweep.json
"""

from __future__ import annotations

import sys
from pathlib import Path

from tuning.sweep.__main__ import main
from tuning.sweep.config import SweepConfig

if __name__ == "__main__":
    sys.exit(main(SweepConfig.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))))
