from tools.coverage.check import main

raise SystemExit(main())
