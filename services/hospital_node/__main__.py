"""`python -m services.hospital_node --config FILE`"""

from services.hospital_node.bootstrap import main

main()
