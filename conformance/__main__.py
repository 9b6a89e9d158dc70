import sys

from conformance.table import main

sys.exit(main())
