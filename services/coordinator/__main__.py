"""python -m services.coordinator --config FILE"""

import sys

from services.coordinator.bootstrap import main

sys.exit(main(sys.argv[1:]))
