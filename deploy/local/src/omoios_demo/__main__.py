"""`python -m omoios_demo`."""

from omoios_demo.cli import main

main()
