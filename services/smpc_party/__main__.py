"""`python -m services.smpc_party --config FILE`"""

import sys

from services.smpc_party.bootstrap import main

sys.exit(main(sys.argv[1:]))
