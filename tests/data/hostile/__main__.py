"""Try the hostile corpus below a folder: python -m tests.data.hostile FOLDER prints JSON lines."""

import json
import sys
from pathlib import Path

from tests.data.hostile.cases import cases
from tests.data.hostile.trial import tried

for place, case in enumerate(cases()):
    result = tried(case, Path(sys.argv[1]) / str(place))
    print(json.dumps({"name": case.name, **result._asdict()}), flush=True)
